// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the M extension defines where machines differ: high halves of products, division by zero and its overflow.

/// The high 64 bits of the product of two signed numbers.
pub(crate) fn mulh(a: u64, b: u64) -> u64 {
    let product = i128::from(a.cast_signed()) * i128::from(b.cast_signed());
    ((product >> 64) as i64).cast_unsigned()
}

/// The high 64 bits of the product of a signed and an unsigned number.
pub(crate) fn mulhsu(a: u64, b: u64) -> u64 {
    let product = i128::from(a.cast_signed()) * i128::from(b);
    ((product >> 64) as i64).cast_unsigned()
}

/// The high 64 bits of the product of two unsigned numbers.
pub(crate) fn mulhu(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

/// The signed quotient; -1 for division by zero.
pub(crate) fn div(a: u64, b: u64) -> u64 {
    match b {
        0 => u64::MAX,
        _ => a
            .cast_signed()
            .wrapping_div(b.cast_signed())
            .cast_unsigned(),
    }
}

/// The unsigned quotient; the greatest number for division by zero.
pub(crate) fn divu(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(u64::MAX)
}

/// The signed remainder; the dividend for division by zero.
pub(crate) fn rem(a: u64, b: u64) -> u64 {
    match b {
        0 => a,
        _ => a
            .cast_signed()
            .wrapping_rem(b.cast_signed())
            .cast_unsigned(),
    }
}

/// The unsigned remainder; the dividend for division by zero.
pub(crate) fn remu(a: u64, b: u64) -> u64 {
    a.checked_rem(b).unwrap_or(a)
}

/// The low 32 bits of `value` as a signed number.
pub(crate) fn word(value: u64) -> i32 {
    (value as u32).cast_signed()
}

/// A register with a signed 32-bit result.
pub(crate) fn extend(value: i32) -> u64 {
    i64::from(value).cast_unsigned()
}

/// The signed 32-bit quotient.
pub(crate) fn divw(a: u64, b: u64) -> u64 {
    match word(b) {
        0 => u64::MAX,
        divisor => extend(word(a).wrapping_div(divisor)),
    }
}

/// The unsigned 32-bit quotient.
pub(crate) fn divuw(a: u64, b: u64) -> u64 {
    let quotient = (a as u32).checked_div(b as u32).unwrap_or(u32::MAX);
    extend(quotient.cast_signed())
}

/// The signed 32-bit remainder.
pub(crate) fn remw(a: u64, b: u64) -> u64 {
    match word(b) {
        0 => extend(word(a)),
        divisor => extend(word(a).wrapping_rem(divisor)),
    }
}

/// The unsigned 32-bit remainder.
pub(crate) fn remuw(a: u64, b: u64) -> u64 {
    let remainder = (a as u32).checked_rem(b as u32).unwrap_or(a as u32);
    extend(remainder.cast_signed())
}
