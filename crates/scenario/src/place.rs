//! Ranges of pages as a scenario names them: `a`, `a[2..5]`, `a[0..2048/512]`, `a+5`, `0x1000:2`.

/// What a [`Place`] counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The mapping of this letter.
    Area(char),
    /// A byte address.
    Address(u64),
    /// The vdso of the process.
    Vdso,
    /// The data pages beside the vdso.
    Vvar,
    /// An address that belongs to the kernel.
    Kernel,
    /// The last page below the user limit.
    Top,
    /// Address 0.
    Null,
}

/// Pages of a base, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where page 0 is.
    pub base: Base,
    /// First and one past the last page; `None`: every page of the base.
    pub pages: Option<(u64, u64)>,
    /// Every how many pages one is taken; 1 takes all.
    pub stride: u64,
    /// Bytes added to each address.
    pub offset: i64,
}

impl Place {
    /// All pages of a base.
    pub const fn all(base: Base) -> Self {
        Self { base, pages: None, stride: 1, offset: 0 }
    }
}
