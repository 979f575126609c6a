//! Any bytes as a request of any version: decodes or errs, and what decodes survives the way out and back in.
#![no_main]

use bytes::Bytes;
use kachet_core::wire::{Chunks, FetchRequest};
use libfuzzer_sys::fuzz_target;

/// One version for each layout. The input holds no version, so that the captured fixtures are seeds as they are.
const VERSIONS: [i16; 10] = [4, 5, 7, 9, 11, 12, 13, 15, 17, 18];

fuzz_target!(|data: &[u8]| {
    for version in VERSIONS {
        let Ok(request) = FetchRequest::decode(Bytes::copy_from_slice(data), version) else {
            continue;
        };
        let encoded = encode(&request, version);
        assert!(
            encoded.len() <= data.len(),
            "v{version}: the shortest encoding is longer"
        );
        let again = FetchRequest::decode(encoded.clone(), version).expect("decodes again");
        assert_eq!(again, request, "v{version}");
        assert_eq!(encode(&again, version), encoded, "v{version}");
        assert_eq!(
            request.partitions().count(),
            request
                .topics
                .iter()
                .map(|topic| topic.partitions.len())
                .sum::<usize>()
        );
    }
});

fn encode(request: &FetchRequest, version: i16) -> Bytes {
    let mut out = Chunks::new();
    request
        .encode(version, &mut out)
        .expect("a version that was decoded");
    let size_bytes = out.size_bytes();
    let bytes = out.into_bytes();
    assert_eq!(bytes.len(), size_bytes);
    bytes
}
