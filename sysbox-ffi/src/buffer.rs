//! `sysbox_buf_t`: bytes that the library hands out.

use crate::boundary::{self, Out};
use std::ffi::c_char;

/// Bytes from the library: a document or a text. Never changes; any thread may read it. Free it with `sysbox_buf_free`, never with
/// free(3).
#[derive(Debug)]
pub struct Buf {
    /// With a NUL at the end that is not counted.
    bytes: Vec<u8>,
}

impl Out<*mut Buf> {
    pub(crate) fn text(self, text: impl Into<Vec<u8>>) {
        let mut bytes = text.into();
        bytes.push(0);
        self.give(Buf { bytes });
    }

    pub(crate) fn json(self, value: &serde_json::Value) {
        self.text(value.to_string());
    }
}

/// The bytes. UTF-8, with a NUL after the last one, so that they are a C string as well. Borrowed until the buffer is freed;
/// empty if `buf` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_buf_data(buf: *const Buf) -> *const c_char {
    // SAFETY: by the rules of the header.
    unsafe { boundary::at(buf, "buf") }.map_or(c"".as_ptr(), |b| b.bytes.as_ptr().cast())
}

/// How many bytes there are, without the NUL; 0 if `buf` is NULL.
#[no_mangle]
pub unsafe extern "C" fn sysbox_buf_size(buf: *const Buf) -> usize {
    // SAFETY: by the rules of the header.
    unsafe { boundary::at(buf, "buf") }.map_or(0, |b| b.bytes.len() - 1)
}

/// Frees a buffer. NULL is fine.
#[no_mangle]
pub unsafe extern "C" fn sysbox_buf_free(buf: *mut Buf) {
    // SAFETY: by the rules of the header.
    unsafe { boundary::free(buf) }
}
