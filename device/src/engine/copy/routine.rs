// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The routines that a copy can be done with.

use clap::ValueEnum;
use serde::Serialize;

use super::portable::{Copy, memcpy};
#[cfg(target_arch = "x86_64")]
use super::x86_64;

/// A way to copy bytes. A *streaming* routine stores past the caches, for a destination that is not read soon; the
/// number is how far ahead of the copy it prefetches the source, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyRoutine {
    /// memcpy() of the C library
    Memcpy,
    /// The string instruction `rep movsb`
    #[cfg(target_arch = "x86_64")]
    RepMovsb,
    /// Vectors of 32 bytes
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Vectors of 32 bytes, streaming
    #[cfg(target_arch = "x86_64")]
    #[value(name = "avx2-stream-512")]
    #[serde(rename = "avx2-stream-512")]
    Avx2Stream512,
    /// Vectors of 32 bytes, streaming
    #[cfg(target_arch = "x86_64")]
    #[value(name = "avx2-stream-1024")]
    #[serde(rename = "avx2-stream-1024")]
    Avx2Stream1024,
    /// Vectors of 32 bytes, streaming
    #[cfg(target_arch = "x86_64")]
    #[value(name = "avx2-stream-2048")]
    #[serde(rename = "avx2-stream-2048")]
    Avx2Stream2048,
    /// Vectors of 64 bytes
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Vectors of 64 bytes, streaming
    #[cfg(target_arch = "x86_64")]
    #[value(name = "avx512-stream-512")]
    #[serde(rename = "avx512-stream-512")]
    Avx512Stream512,
    /// Vectors of 64 bytes, streaming
    #[cfg(target_arch = "x86_64")]
    #[value(name = "avx512-stream-1024")]
    #[serde(rename = "avx512-stream-1024")]
    Avx512Stream1024,
    /// Vectors of 64 bytes, streaming
    #[cfg(target_arch = "x86_64")]
    #[value(name = "avx512-stream-2048")]
    #[serde(rename = "avx512-stream-2048")]
    Avx512Stream2048,
}

impl CopyRoutine {
    /// The routines that this processor can execute; the first is memcpy.
    pub fn available() -> impl Iterator<Item = Self> {
        (Self::value_variants().iter().copied()).filter(|routine| routine.is_available())
    }

    /// Whether this processor has the instructions.
    pub fn is_available(self) -> bool {
        match self {
            Self::Memcpy => true,
            #[cfg(target_arch = "x86_64")]
            Self::RepMovsb => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx2Stream512 | Self::Avx2Stream1024 | Self::Avx2Stream2048 => {
                is_x86_feature_detected!("avx2")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512
            | Self::Avx512Stream512
            | Self::Avx512Stream1024
            | Self::Avx512Stream2048 => is_x86_feature_detected!("avx512f"),
        }
    }

    /// Whether stores go past the caches.
    #[inline]
    pub(super) fn streams(self) -> bool {
        match self {
            Self::Memcpy => false,
            #[cfg(target_arch = "x86_64")]
            Self::RepMovsb | Self::Avx2 | Self::Avx512 => false,
            #[cfg(target_arch = "x86_64")]
            _ => true,
        }
    }

    /// The function. It may be called only if [`CopyRoutine::is_available`].
    pub(super) fn function(self) -> Copy {
        match self {
            Self::Memcpy => memcpy,
            #[cfg(target_arch = "x86_64")]
            Self::RepMovsb => x86_64::rep_movsb,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86_64::avx2,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Stream512 => x86_64::avx2_stream::<512>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Stream1024 => x86_64::avx2_stream::<1024>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Stream2048 => x86_64::avx2_stream::<2048>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86_64::avx512,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Stream512 => x86_64::avx512_stream::<512>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Stream1024 => x86_64::avx512_stream::<1024>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Stream2048 => x86_64::avx512_stream::<2048>,
        }
    }

    /// The name, as `--copy` takes it.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
