# SPDX-License-Identifier: BSD-2-Clause
"""Computes with what Python has of arithmetic, text and data formats; checks itself and prints hashes."""
import collections
import decimal
import fractions
import hashlib
import json
import math
import multiprocessing
import random
import re
import struct
import zlib


def show(name, value):
    print(name, hashlib.sha256(repr(value).encode()).hexdigest()[:24])


def integers():
    factorial = math.factorial(2000)
    assert factorial // math.factorial(1999) == 2000
    power = pow(3, 5000)
    assert power % (10**9 + 7) == pow(3, 5000, 10**9 + 7)
    assert math.isqrt(power * power) == power
    return str(factorial // 10**2000), hex(power), math.gcd(factorial, power)


def floats():
    values = [math.sqrt(i) * 1.1 / (i + 0.3) for i in range(3000)]
    assert all(float(repr(v)) == v for v in values)
    packed = struct.pack("<3000d", *values)
    assert list(struct.unpack("<3000d", packed)) == values
    return packed, math.fsum(values), sum(values), [round(v, 3) for v in values]


def numbers():
    decimal.getcontext().prec = 200
    root = decimal.Decimal(2).sqrt()
    assert abs(root * root - 2) < decimal.Decimal(10) ** -198
    harmonic = sum(fractions.Fraction(1, i) for i in range(1, 300))
    return str(root), harmonic


def data():
    source = random.Random(42)
    tree = [{"id": i, "name": "item \u00e9\u4e2d%d" % i, "value": source.random(),
             "list": [source.randrange(10**12) for _ in range(5)], "none": None, "yes": True}
            for i in range(500)]
    text = json.dumps(tree, sort_keys=True)
    assert json.loads(text) == tree
    packed = zlib.compress(text.encode(), 9)
    assert zlib.decompress(packed).decode() == text
    return text, zlib.crc32(text.encode()), zlib.adler32(packed)


def texts():
    source = random.Random(7)
    text = " ".join("".join(source.choices("abcdefgh", k=source.randrange(2, 9)))
                    for _ in range(8000))
    words = collections.Counter(re.findall(r"\b[a-d]\w*[e-h]\b", text))
    swapped = re.sub(r"(\w)(\w+)\b", lambda m: m.group(2) + m.group(1).upper(), text)
    assert len(swapped) == len(text)
    return words.most_common(50), swapped, sorted(set(text.split()), key=lambda w: (len(w), w[::-1]))


def digests():
    block = bytes(range(256)) * 400
    names = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b", "blake2s"]
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")
    return [(name, hashlib.new(name, block).hexdigest()) for name in names]


def primes(limits):
    low, high = limits
    return [n for n in range(low, high) if n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))]


def processes():
    with multiprocessing.Pool(2) as pool:
        parts = pool.map(primes, [(i, i + 500) for i in range(0, 8000, 500)])
    found = [p for part in parts for p in part]
    assert len(found) == 1007
    return found


for work in (integers, floats, numbers, data, texts, digests, processes):
    show(work.__name__, work())
