//! How many bytes a response takes at most once it is encoded, known before it is: so that there
//! can be room for it.

use bytes::Bytes;
use uuid::Uuid;

/// The length of bytes, of an array or of a string, in whichever form takes more.
const LENGTH_BYTES_MAX: usize = 5;

/// What knows how much it takes when it is encoded.
pub trait Measured {
    /// The most bytes that it takes, whatever the version: fields are counted that some versions
    /// leave out.
    fn encoded_bytes_max(&self) -> usize;
}

macro_rules! as_in_memory {
    ($($type:ty),*) => {$(
        impl Measured for $type {
            fn encoded_bytes_max(&self) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

as_in_memory!(bool, i8, i16, i32, i64, u16, u32, f64, Uuid);

macro_rules! with_a_length {
    ($($type:ty),*) => {$(
        impl Measured for $type {
            fn encoded_bytes_max(&self) -> usize {
                LENGTH_BYTES_MAX + self.len()
            }
        }
    )*};
}

with_a_length!(&str, String, Bytes);

impl<T: Measured> Measured for Vec<T> {
    fn encoded_bytes_max(&self) -> usize {
        LENGTH_BYTES_MAX + self.iter().map(T::encoded_bytes_max).sum::<usize>()
    }
}

/// Null is a length, or one byte in place of a struct, which a struct that is there has before it.
impl<T: Measured> Measured for Option<T> {
    fn encoded_bytes_max(&self) -> usize {
        self.as_ref().map_or(LENGTH_BYTES_MAX, |inner| 1 + inner.encoded_bytes_max())
    }
}
