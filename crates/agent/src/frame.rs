//! Frames: how a message is cut out of a stream of bytes.
//!
//! ```text
//! magic (4) | length (4) | length, inverted (4) | CRC-32 of the payload (4) | payload (length)
//! ```
//!
//! Integers are little-endian. A serial line gives no promise: bytes may be lost when the guest's
//! tty buffer runs over, and a boot loader may have written first. So the length is written twice
//! (a garbled one must not make the reader wait for a megabyte that never comes), the payload has
//! a checksum, and a reader that meets garbage says so and goes on at the next magic.
//!
//! Pure: no I/O. [`crate::port`] reads and writes.

use std::mem;

/// Starts every frame. Not text, so that no console output can be taken for it.
const MAGIC: [u8; 4] = [0xf5, b'P', b'T', 0x0a];
const HEADER_BYTES: usize = 16;
/// Bytes of the longest payload. The longest real one is a command line.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// What is wrong with bytes that were read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Bytes that belong to no frame; the reader has left them behind.
    #[error("{bytes} bytes on the agent's port belong to no frame")]
    Garbage {
        /// How many were skipped.
        bytes: usize,
    },
    /// A frame arrived with other bytes than were sent; the reader has left it behind.
    #[error("a frame of {bytes} bytes on the agent's port arrived damaged")]
    Damaged {
        /// Length of its payload.
        bytes: usize,
    },
}

/// A payload that no frame can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message of {bytes} bytes is too long: {PAYLOAD_BYTES_MAX} is the most that a frame holds"
)]
pub struct TooLong {
    /// Bytes of the payload.
    pub bytes: usize,
}

/// Appends one frame to `stream`.
///
/// # Errors
///
/// [`TooLong`], with `stream` as it was.
pub fn encode(payload: &[u8], stream: &mut Vec<u8>) -> Result<(), TooLong> {
    let too_long = TooLong { bytes: payload.len() };
    let length = u32::try_from(payload.len()).map_err(|_| too_long.clone())?;
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(too_long);
    }
    stream.extend_from_slice(&MAGIC);
    stream.extend_from_slice(&length.to_le_bytes());
    stream.extend_from_slice(&(!length).to_le_bytes());
    stream.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    stream.extend_from_slice(payload);
    Ok(())
}

/// Cuts frames out of a stream that arrives in pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes not yet consumed: at most one frame and what was pushed last.
    bytes: Vec<u8>,
    /// Where the next frame begins in `bytes`.
    start: usize,
}

impl Decoder {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..mem::take(&mut self.start));
        self.bytes.extend_from_slice(bytes);
    }

    /// The payload of the next whole frame; `None` until more bytes are pushed.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: what is bad has been skipped, and the next call goes on behind it.
    pub fn next_payload(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let garbage = garbage_before_magic(&self.bytes[self.start..]);
        if garbage > 0 {
            self.start += garbage;
            return Err(FrameError::Garbage { bytes: garbage });
        }
        let frame = &self.bytes[self.start..];
        let Some(header) = Header::read(frame) else { return Ok(None) };
        let Some(length) = header.length() else {
            self.start += MAGIC.len();
            return Err(FrameError::Garbage { bytes: MAGIC.len() });
        };
        let end = HEADER_BYTES + length;
        if frame.len() < end {
            return Ok(None);
        }
        if crc32fast::hash(&frame[HEADER_BYTES..end]) != header.checksum {
            // Only the magic is skipped: bytes were perhaps lost, and then the next frame begins
            // inside of what this one claims.
            self.start += MAGIC.len();
            return Err(FrameError::Damaged { bytes: length });
        }
        let payload = self.start + HEADER_BYTES..self.start + end;
        self.start += end;
        Ok(Some(&self.bytes[payload]))
    }
}

struct Header {
    length: u32,
    inverted: u32,
    checksum: u32,
}

impl Header {
    fn read(frame: &[u8]) -> Option<Self> {
        let word = |at| {
            let bytes: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        Some(Self { length: word(4)?, inverted: word(8)?, checksum: word(12)? })
    }

    /// The length, when both copies agree and a frame may have it.
    fn length(&self) -> Option<usize> {
        let length = usize::try_from(self.length).ok()?;
        (self.length == !self.inverted && length <= PAYLOAD_BYTES_MAX).then_some(length)
    }
}

/// How many bytes lie before the first place where a magic begins, or may begin at the end.
fn garbage_before_magic(bytes: &[u8]) -> usize {
    (0..bytes.len())
        .find(|&at| {
            let rest = &bytes[at..bytes.len().min(at + MAGIC.len())];
            MAGIC.starts_with(rest)
        })
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Everything that a decoder finds in a stream that arrives in pieces of `piece` bytes.
    fn decode(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Vec<FrameError>) {
        let (mut decoder, mut payloads, mut errors) = (Decoder::default(), Vec::new(), Vec::new());
        for bytes in stream.chunks(piece) {
            decoder.push(bytes);
            loop {
                match decoder.next_payload() {
                    Ok(Some(payload)) => payloads.push(payload.to_vec()),
                    Ok(None) => break,
                    Err(error) => errors.push(error),
                }
            }
        }
        (payloads, errors)
    }

    fn stream_of(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        payloads.iter().for_each(|payload| encode(payload, &mut stream).unwrap());
        stream
    }

    #[test]
    fn a_payload_above_the_cap_is_refused_and_the_stream_left_alone() {
        let mut stream = vec![1, 2, 3];
        let error = encode(&vec![0; PAYLOAD_BYTES_MAX + 1], &mut stream).unwrap_err();
        assert_eq!(error, TooLong { bytes: PAYLOAD_BYTES_MAX + 1 });
        assert_eq!(stream, [1, 2, 3]);
    }

    #[test]
    fn a_garbled_length_does_not_make_the_reader_wait() {
        let mut stream = stream_of(&[b"lost".to_vec(), b"kept".to_vec()]);
        stream[6] ^= 0x08;
        let (payloads, errors) = decode(&stream, stream.len());
        assert_eq!(payloads, [b"kept".to_vec()]);
        assert!(!errors.is_empty());
    }

    #[test]
    fn a_lost_byte_costs_one_frame() {
        let mut stream = stream_of(&[b"lost".to_vec(), b"kept".to_vec(), b"too".to_vec()]);
        stream.remove(HEADER_BYTES);
        let (payloads, errors) = decode(&stream, stream.len());
        assert_eq!(payloads, [b"kept".to_vec(), b"too".to_vec()]);
        assert_eq!(errors[0], FrameError::Damaged { bytes: 4 });
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_in_pieces_of_any_size(
            payloads in vec(vec(any::<u8>(), 0..200), 0..8), piece in 1..64usize,
        ) {
            let (found, errors) = decode(&stream_of(&payloads), piece);
            prop_assert_eq!(found, payloads);
            prop_assert_eq!(errors, []);
        }

        #[test]
        fn text_before_a_frame_is_told_and_skipped(text in "[ -~\n]{1,80}", payload in vec(any::<u8>(), 0..80)) {
            let mut stream = text.clone().into_bytes();
            encode(&payload, &mut stream).unwrap();
            let (found, errors) = decode(&stream, stream.len());
            prop_assert_eq!(found, [payload]);
            prop_assert_eq!(errors, [FrameError::Garbage { bytes: text.len() }]);
        }

        #[test]
        fn one_changed_byte_never_yields_another_payload(
            payload in vec(any::<u8>(), 1..100), at in any::<prop::sample::Index>(), bits in 1..=255u8,
        ) {
            let mut stream = stream_of(&[payload]);
            let at = at.index(stream.len());
            stream[at] ^= bits;
            prop_assert_eq!(decode(&stream, stream.len()).0, Vec::<Vec<u8>>::new());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..400), piece in 1..64usize) {
            decode(&bytes, piece);
        }
    }
}
