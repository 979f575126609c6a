//! Any bytes as a response of any version: decodes or errs, what decodes survives the way out and back in, and
//! its record data can be walked, verified, decompressed and read.
#![no_main]

use bytes::Bytes;
use kachet_core::wire::{Chunks, FetchResponse};
use kachet_fuzz::walk_batches;
use libfuzzer_sys::fuzz_target;

/// One version for each layout. The input holds no version, so that the captured fixtures are seeds as they are.
const VERSIONS: [i16; 7] = [4, 5, 7, 11, 12, 13, 16];

fuzz_target!(|data: &[u8]| {
    for version in VERSIONS {
        let Ok(response) = FetchResponse::decode(Bytes::copy_from_slice(data), version) else {
            continue;
        };
        let encoded = encode(&response, version);
        assert!(
            encoded.len() <= data.len(),
            "v{version}: the shortest encoding is longer"
        );
        let again = FetchResponse::decode(encoded.clone(), version).expect("decodes again");
        assert_eq!(again, response, "v{version}");
        assert_eq!(encode(&again, version), encoded, "v{version}");
        for (_, partition) in response.partitions() {
            if let Some(records) = &partition.records {
                walk_batches(&records.to_bytes());
            }
        }
    }
});

fn encode(response: &FetchResponse, version: i16) -> Bytes {
    let mut out = Chunks::new();
    response
        .encode(version, &mut out)
        .expect("a version that was decoded");
    let size_bytes = out.size_bytes();
    let slices = out.clone().into_slices();
    let bytes = out.into_bytes();
    assert_eq!(bytes.len(), size_bytes);
    assert_eq!(slices.concat(), bytes);
    bytes
}
