# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Fills a hash, and reads it at random: all of its memory is in use all the time.
use strict;
my ($count, $number, $sum, %hash) = (400_000, 12_345, 0);
$hash{"key$_"} = $_ for 1 .. $count;
for (1 .. $count) {
    $number = ($number * 1_103_515_245 + 12_345) % 2_147_483_648;
    $sum += $hash{'key' . (1 + int($number / 65_536 * $count / 32_768))};
}
print "$sum\n";
