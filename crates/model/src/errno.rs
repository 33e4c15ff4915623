//! The errors that the modelled system calls return.

use std::fmt;

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// An errno, by the kernel's name. Source: errno(3), asm-generic/errno.h.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Errno {
            $(#[doc = $text] $name = $number,)*
        }

        impl Errno {
            /// The kernel's name, as `EPERM`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The errno of a negative status word or return value.
            pub const fn from_raw(number: i32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted.";
    ENOENT = 2, "No such thing.";
    ESRCH = 3, "No such process.";
    EIO = 5, "Pages stayed where the policy does not want them.";
    EAGAIN = 11, "Not now.";
    ENOMEM = 12, "No memory where it has to be.";
    EACCES = 13, "Not allowed there; or shared with others.";
    EFAULT = 14, "Bad address.";
    EBUSY = 16, "Busy.";
    ENODEV = 19, "No such node.";
    EINVAL = 22, "Invalid argument.";
    ENOSPC = 28, "Processes would be left without a node.";
    EOPNOTSUPP = 95, "The policy of the mapping does not support this.";
}

impl Errno {
    /// The positive number.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Errno {}
