#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Hashes, ciphers and signatures with each of the code paths that OpenSSL chooses by CPUID.
# openssl.sh KIB MASK...: amount of data, values of OPENSSL_ia32cap. Hashes are compared with those of busybox.
set -e
key=00112233445566778899aabbccddeeff
head -c "$1"k /dev/zero | openssl enc -aes-128-ctr -K $key -iv $key >data
hash_of() {
    set -- $("$@")
    echo "$1"
}
shift
for mask; do
    [ $mask = none ] || export OPENSSL_ia32cap=$mask
    for name in md5 sha1 sha256 sha512 sha3-256; do
        openssl dgst -$name -r data
    done
    [ "$(hash_of openssl dgst -sha256 -r data)" = "$(hash_of sha256sum data)" ]
    [ "$(hash_of openssl dgst -sha512 -r data)" = "$(hash_of sha512sum data)" ]
    [ "$(hash_of openssl dgst -md5 -r data)" = "$(hash_of md5sum data)" ]
    for name in aes-128-cbc aes-256-ctr chacha20 camellia-128-cbc; do
        openssl enc -$name -pass pass:secret -S 0102030405060708 -pbkdf2 -iter 1000 -in data -out packed
        openssl enc -d -$name -pass pass:secret -S 0102030405060708 -pbkdf2 -iter 1000 -in packed \
            -out unpacked
        cmp data unpacked
        openssl dgst -sha256 -r packed
    done
    openssl dgst -sha256 -mac hmac -macopt hexkey:$key -r data
    for algorithm in "rsa -pkeyopt rsa_keygen_bits:1024" "ec -pkeyopt ec_paramgen_curve:P-256" ed25519 x25519; do
        openssl genpkey -algorithm $algorithm -out key.pem 2>/dev/null
        openssl pkey -in key.pem -pubout -out public.pem
        [ "$algorithm" = x25519 ] && continue
        openssl dgst -sha256 -r data >message
        openssl pkeyutl -sign -rawin -inkey key.pem -in message -out signature
        openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in message -sigfile signature
    done
done
unset OPENSSL_ia32cap
for name in aes-128-gcm sha256 chacha20-poly1305; do
    openssl speed -seconds 1 -bytes 8192 -evp $name >speed.log 2>&1
    grep "8192 bytes\|^$name" speed.log >&2
done
echo "no errors"
