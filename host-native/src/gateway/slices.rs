//! A body of slices that stay where they are.

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::VecDeque;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Slices, none of which is joined with another.
#[derive(Debug)]
pub(super) struct Slices {
    left: VecDeque<Bytes>,
    left_bytes: u64,
}

impl Slices {
    pub(super) fn new(slices: Vec<Bytes>) -> Self {
        let left_bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        Self {
            left: slices.into(),
            left_bytes,
        }
    }
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.left.pop_front();
        if let Some(slice) = &next {
            self.left_bytes -= slice.len() as u64;
        }
        Poll::Ready(next.map(|slice| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_bytes)
    }
}
