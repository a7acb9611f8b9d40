//! Instruction sets that the inner loops are written for: which there are, which this machine has, which one
//! a device takes.

use std::{fmt, str::FromStr};

use crate::KernelError;

/// A choice of inner loops. All give the same integers; each needs what those of its architecture before it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust: every machine.
    Portable,
    /// 256-bit vectors of x86-64 (2013 on).
    Avx2,
    /// 512-bit vectors with int8 and int16 dot products: Cascade Lake, Zen 4 and later.
    Avx512Vnni,
    /// Matrix tiles of int8: Sapphire Rapids and later, on an operating system that lets the process use them.
    AmxInt8,
    /// 128-bit vectors of AArch64: every such processor.
    Neon,
    /// Those with int8 dot products (FEAT_DotProd): Cortex-A75, Neoverse N1, Apple A11 and later.
    NeonDot,
}

impl Isa {
    /// All, the plainest first.
    pub const ALL: [Self; 6] = [
        Self::Portable,
        Self::Avx2,
        Self::Avx512Vnni,
        Self::AmxInt8,
        Self::Neon,
        Self::NeonDot,
    ];

    /// Environment variable that names the choice where a program has no option for it.
    pub const VARIABLE: &'static str = "BITAI_CPU_ISA";

    /// The name, as [`Isa::from_str`] reads it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512Vnni => "avx512-vnni",
            Self::AmxInt8 => "amx-int8",
            Self::Neon => "neon",
            Self::NeonDot => "neon-dot",
        }
    }

    /// Whether this machine (processor and operating system) has it.
    pub fn is_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => std::arch::is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.is_here()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AmxInt8 => Self::Avx512Vnni.is_here() && super::linear::amx::is_here(),
            // Words of four bytes are taken for vectors as they lie in memory.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => Self::Neon.is_here() && std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    /// Those that this machine has, the best last.
    pub fn here() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_here()).collect()
    }

    /// The best that this machine has.
    pub fn best() -> Self {
        Self::here().pop().unwrap_or(Self::Portable)
    }

    /// The one that [`Isa::VARIABLE`] names, else the best. Fails for an unknown name, and for one that this
    /// machine lacks.
    pub fn chosen() -> Result<Self, KernelError> {
        match std::env::var(Self::VARIABLE) {
            Err(std::env::VarError::NotPresent) => Ok(Self::best()),
            name => {
                let name = name.unwrap_or_else(|e| e.to_string());
                let isa = Self::from_str(&name).map_err(|e| device(format!("{}: {e}", Self::VARIABLE)))?;
                isa.checked()
            }
        }
    }

    /// Itself where this machine has it; the error says what it has.
    pub fn checked(self) -> Result<Self, KernelError> {
        if self.is_here() {
            return Ok(self);
        }
        Err(device(format!(
            "this machine has no {self} instructions; it has {}",
            names(&Self::here())
        )))
    }
}

fn device(why: String) -> KernelError {
    KernelError::Device {
        device: "cpu".into(),
        why,
    }
}

fn names(of: &[Isa]) -> String {
    let names: Vec<&str> = of.iter().map(|isa| isa.name()).collect();
    names.join(", ")
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no instruction set's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no instruction set is called {name:?}; there are {}", names(&Isa::ALL))]
pub struct UnknownIsa {
    /// The name given.
    pub name: String,
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| UnknownIsa { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn rejects_unknown_names() {
        let err = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(err.contains("\"sse9\"") && err.contains("portable"), "{err}");
    }

    #[test]
    fn rejects_what_the_machine_lacks() {
        for isa in Isa::ALL {
            match isa.checked() {
                Ok(_) => assert!(isa.is_here()),
                Err(e) => assert!(e.to_string().contains("it has portable"), "{e}"),
            }
        }
        assert!(Isa::Portable.is_here());
        assert!(Isa::best().is_here());
    }
}
