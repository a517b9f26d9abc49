# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Works on a dictionary beside text that it only keeps, in rounds: ROUNDS of them, or until the file STOP exists if ROUNDS is 0.
# Tells the number of rounds, and what the dictionary and the text add up to.
import os, sys, zlib

stop, rounds = sys.argv[1], int(sys.argv[2])
text = [str(number) * 12 for number in range(120_000)]
table = {}
state = 1
done = 0
while done < rounds if rounds else not os.path.exists(stop):
    for _ in range(4_000):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        key = state >> 48
        table[key] = table.get(key, 0) + (state >> 20 & 0xffff)
    done += 1
print(done, sum(table.values()), zlib.crc32(repr(sorted(table.items())).encode()), zlib.crc32(''.join(text).encode()))
