/* SPDX-License-Identifier: BSD-2-Clause */
/* Writes a JSON document of SIZE objects, parses it into a tree, and prints that again. */
#include "bench.h"

enum kind { NUMBER, STRING, ARRAY, OBJECT, WORD };

struct value {
    enum kind kind;
    struct value *next, *children;
    char *name, *string;
    int64_t number;
};

static const char *in;
static char *out;

static void fail(const char *why)
{
    fprintf(stderr, "json: %s at '%.20s'\n", why, in);
    exit(1);
}

static void space(void)
{
    while (*in == ' ' || *in == '\n')
        in++;
}

static char *parse_string(void)
{
    const char *start = ++in;
    size_t length = 0;
    for (; *in != '"'; in++, length++) {
        if (*in == '\0')
            fail("end in a string");
        if (*in == '\\')
            in++;
    }
    char *string = bench_alloc(length + 1), *to = string;
    for (const char *at = start; at < in; at++) {
        if (*at == '\\' && *++at == 'n')
            *to++ = '\n';
        else
            *to++ = *at;
    }
    *to = '\0';
    in++;
    return string;
}

static struct value *parse(void);

static void parse_members(struct value *v, char end)
{
    struct value **link = &v->children;
    in++;
    for (space(); *in != end; space()) {
        char *name = NULL;
        if (v->kind == OBJECT) {
            name = parse_string();
            space();
            if (*in++ != ':')
                fail("no colon");
        }
        *link = parse();
        (*link)->name = name;
        link = &(*link)->next;
        space();
        if (*in == ',')
            in++;
        else if (*in != end)
            fail("no comma");
    }
    in++;
}

static struct value *parse(void)
{
    struct value *v = calloc(1, sizeof(*v));
    if (v == NULL)
        exit(2);
    space();
    if (*in == '{' || *in == '[') {
        v->kind = *in == '{' ? OBJECT : ARRAY;
        parse_members(v, *in == '{' ? '}' : ']');
    } else if (*in == '"') {
        v->kind = STRING;
        v->string = parse_string();
    } else if (*in == '-' || (*in >= '0' && *in <= '9')) {
        int minus = *in == '-';
        v->kind = NUMBER;
        for (in += minus; *in >= '0' && *in <= '9'; in++)
            v->number = v->number * 10 + (*in - '0');
        v->number = minus ? -v->number : v->number;
    } else {
        static const char *const words[] = {"null", "false", "true"};
        v->kind = WORD;
        v->number = *in == 't' ? 2 : *in == 'f';
        size_t length = strlen(words[v->number]);
        if (strncmp(in, words[v->number], length) != 0)
            fail("unknown word");
        in += length;
    }
    return v;
}

static void print_string(const char *s)
{
    *out++ = '"';
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\')
            *out++ = '\\';
        if (*s == '\n')
            *out++ = '\\';
        *out++ = *s == '\n' ? 'n' : *s;
    }
    *out++ = '"';
}

static void print(const struct value *v)
{
    static const char *const words[] = {"null", "false", "true"};
    if (v->name != NULL) {
        print_string(v->name);
        *out++ = ':';
    }
    switch (v->kind) {
    case NUMBER:
        out += sprintf(out, "%" PRId64, v->number);
        break;
    case STRING:
        print_string(v->string);
        break;
    case WORD:
        out = stpcpy(out, words[v->number]);
        break;
    case ARRAY:
    case OBJECT:
        *out++ = v->kind == ARRAY ? '[' : '{';
        for (const struct value *child = v->children; child != NULL; child = child->next) {
            print(child);
            if (child->next != NULL)
                *out++ = ',';
        }
        *out++ = v->kind == ARRAY ? ']' : '}';
        break;
    }
}

static void release(struct value *v)
{
    while (v != NULL) {
        struct value *next = v->next;
        release(v->children);
        free(v->name);
        free(v->string);
        free(v);
        v = next;
    }
}

static char *document(long objects)
{
    char *text = bench_alloc((size_t)objects * 256 + 16), *to = text;
    uint64_t seed = 17;
    *to++ = '[';
    for (long i = 0; i < objects; i++) {
        uint64_t r = bench_random(&seed);
        to += sprintf(to,
                      "%s\n  {\"id\": %ld, \"name\": \"item \\\"%" PRIx64
                      "\\\"\\n\", \"tags\": [\"red\", \"green\", %d, null], "
                      "\"size\": {\"width\": %d, \"height\": -%d}, \"ready\": %s}",
                      i ? "," : "", i, r, (int)(r % 100), (int)(r % 1000), (int)(r >> 54),
                      r % 3 ? "true" : "false");
    }
    strcpy(to, "\n]\n");
    return text;
}

int main(int argc, char **argv)
{
    long objects = bench_size(argc, argv);
    char *text = document(objects);
    char *printed = bench_alloc(strlen(text) + 1);
    uint64_t sum = 0;
    for (int round = 0; round < 3; round++) {
        in = text;
        struct value *v = parse();
        out = printed;
        print(v);
        *out = '\0';
        release(v);
        for (const char *p = printed; *p != '\0'; p++)
            sum = sum * 31 + (uint8_t)*p;
        in = printed;
        release(parse());
    }
    return bench_print("json", sum);
}
