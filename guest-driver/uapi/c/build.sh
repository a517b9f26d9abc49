#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
# Builds a program with functions that the CPU and the device both can run.
#
# Usage: build.sh OUTPUT HOST.c DEVICE.c
#
# DEVICE.c is compiled twice: for the CPU, as part of the program, and to RV64IMAC code that the program has in its memory.
# HOST.c names the latter with HMM_DEVICE_FUNCTION(name). DEVICE.c can use nothing but what it defines, and keeps no
# addresses in variables that it initialises. CLANG, LLD, OBJCOPY and NM name other programs than those of LLVM.
set -eu
output=$1 host=$2 device=$3
here=$(dirname "$0")
clang=${CLANG:-clang} lld=${LLD:-ld.lld} objcopy=${OBJCOPY:-llvm-objcopy} nm=${NM:-llvm-nm}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
warnings='-O2 -Wall -Wextra -Werror -fno-strict-aliasing'

# shellcheck disable=SC2086 # The words are options.
"$clang" --target=riscv64-unknown-elf -march=rv64imac -mabi=lp64 -mcmodel=medany -ffreestanding -fno-builtin -fPIC \
	-fvisibility=hidden $warnings -c "$device" -o "$work/device.o"
"$lld" -pie --no-dynamic-linker --no-undefined -e 0 -T "$here/device.ld" "$work/device.o" -o "$work/device.elf"
"$objcopy" -O binary -j .image "$work/device.elf" "$work/device.bin"
{
	echo '.data'
	echo '.balign 4096'
	echo 'hmm_device_image:'
	echo ".incbin \"$work/device.bin\""
	"$nm" --defined-only "$work/device.o" | sed -n 's/^[0-9a-f]* T //p' | sort >"$work/functions"
	"$nm" --defined-only "$work/device.elf" | while read -r address _ name; do
		if grep -qx "$name" "$work/functions"; then
			echo ".globl hmm_device_$name"
			echo ".set hmm_device_$name, hmm_device_image + 0x$address"
		fi
	done
	echo '.section .note.GNU-stack, "", @progbits'
} >"$work/image.S"
# shellcheck disable=SC2086
"$clang" $warnings -static -pthread -I"$here" "$host" "$device" "$work/image.S" -o "$output"
