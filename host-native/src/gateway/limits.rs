//! What bounds requests, answers and connections.

use core::time::Duration;

/// Bounds of a gateway.
#[derive(Clone, Copy, Debug)]
pub struct GatewayLimits {
    /// Connections at a time; further ones are closed at once.
    pub connections: usize,
    /// Requests that are answered at a time; further ones are told to come again.
    pub concurrent_requests: usize,
    /// Records that one request may ask for.
    pub records: u64,
    /// Bytes of one answer, beyond its first record or batch, which always comes whole.
    pub response_size_bytes: usize,
    /// Bytes of the body of one request.
    pub request_size_bytes: usize,
    /// What a batch may hold after decompression, in bytes, to be read record by record.
    pub decompressed_batch_bytes: usize,
    /// Within what time the head of a request has to come, and after it the body.
    pub request_timeout: Duration,
    /// Within what time an answer has to begin.
    pub answer_timeout: Duration,
    /// For how long a client may take nothing of its answer.
    pub send_timeout: Duration,
    /// For how long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long what is under way may take at the end of the gateway.
    pub shutdown_grace: Duration,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self {
            connections: 1_024,
            concurrent_requests: 256,
            records: 10_000,
            response_size_bytes: 16 << 20,
            request_size_bytes: 1 << 20,
            decompressed_batch_bytes: 64 << 20,
            request_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_mins(1),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}
