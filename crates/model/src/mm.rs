//! Virtual memory: address spaces, their mappings and page tables, and what happens to them.

pub(crate) mod access;
pub(crate) mod address_space;
pub(crate) mod adopt;
mod collapse;
pub(crate) mod entries;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod huge_fault;
pub(crate) mod ksm;
pub(crate) mod madvise;
mod mappers;
pub(crate) mod mapping;
mod mlock;
pub(crate) mod page_table;
pub(crate) mod pin;
pub(crate) mod rmap;
pub(crate) mod split;
pub(crate) mod task;
pub(crate) mod vdso;
pub(crate) mod vma;
