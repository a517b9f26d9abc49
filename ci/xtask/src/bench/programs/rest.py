# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Fills 64 MiB and uses them no more, works with a dictionary, and then tells how much of the 64 MiB is away.
import array, ctypes, os, random, sys

PAGE = 4096
rest = bytearray(os.urandom(1 << 20)) * 64
random.seed(5)
table = {random.randrange(1 << 40): number for number in range(150_000)}
keys = list(table)
total = 0
for number in range(900_000):
    total += table[keys[number * 7919 % len(keys)]]
print(total)

start = ctypes.addressof(ctypes.c_char.from_buffer(rest)) // PAGE + 1
pages = len(rest) // PAGE - 2
with open('/proc/self/pagemap', 'rb', buffering=0) as pagemap:
    pagemap.seek(start * 8)
    entries = array.array('Q', pagemap.read(pages * 8))
away = sum(1 for entry in entries if not entry >> 63)
print(f'at rest, away: {away / len(entries):.3f}', file=sys.stderr)
