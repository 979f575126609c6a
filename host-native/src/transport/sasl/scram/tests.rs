//! Against the example of RFC 7677 and one made by Python's hashlib, and against brokers that are none.

use super::*;

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const WITHOUT_PROOF: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

/// Hash, proof and signature for user "user" with password "pencil".
const EXAMPLES: [(Hash, &str, &str); 2] = [
    // RFC 7677, section 3.
    (
        Hash::Sha256,
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
    // The same by hashlib.pbkdf2_hmac and hmac.digest of Python 3.
    (
        Hash::Sha512,
        "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
        "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    ),
];

fn client(hash: Hash) -> ClientFirst {
    ClientFirst::with_nonce(hash, "user", &"pencil".into(), NONCE.into())
}

#[test]
fn the_examples_come_out() {
    for (hash, proof, signature) in EXAMPLES {
        let client = client(hash);
        assert_eq!(client.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let client = client.prove(SERVER_FIRST.as_bytes()).unwrap();
        assert_eq!(client.message(), format!("{WITHOUT_PROOF},p={proof}"));
        client.verify(format!("v={signature}").as_bytes()).unwrap();
        client.verify(format!("v={signature},x=y").as_bytes()).unwrap();
    }
}

#[test]
fn a_broker_that_does_not_know_the_password_is_found_out() {
    for (hash, proof, signature) in EXAMPLES {
        let client = client(hash).prove(SERVER_FIRST.as_bytes()).unwrap();
        let other = signature.replacen(['6', 'Z'], "A", 1);
        let too_short = STANDARD.encode(&STANDARD.decode(signature).unwrap()[..16]);
        for wrong in [other.as_str(), proof, &too_short, ""] {
            let error = client.verify(format!("v={wrong}").as_bytes()).unwrap_err();
            assert!(matches!(error, SaslError::ServerSignature), "{wrong}: {error}");
        }
        for malformed in ["v=?", "", "v", "x=1", "\u{0}"] {
            let error = client.verify(malformed.as_bytes()).unwrap_err();
            assert!(
                matches!(error, SaslError::Malformed { .. }),
                "{malformed}: {error}"
            );
        }
        let error = client.verify(b"e=invalid-proof\n").unwrap_err();
        assert!(
            matches!(&error, SaslError::Refused { message } if message == "invalid-proof"),
            "{error}"
        );
    }
}

fn error_of(server_first: impl AsRef<[u8]>) -> SaslError {
    client(Hash::Sha256).prove(server_first.as_ref()).unwrap_err()
}

#[test]
fn an_answer_to_another_login_is_refused() {
    for nonce in ["", "x", "rOprNGfwEbeRWgbNEkqO", "rOprNGfwEbeRWgbNEkqx%hvYD"] {
        let error = error_of(format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        assert!(matches!(error, SaslError::Nonce), "{nonce}: {error}");
    }
}

#[test]
fn iteration_counts_have_bounds_on_both_sides() {
    let first = |iterations: &str| SERVER_FIRST.replace("4096", iterations);
    for (given, iterations) in [
        ("0", 0),
        ("1", 1),
        ("4095", 4095),
        ("1000001", 1_000_001),
        ("10000000", 10_000_000),
        ("4294971392", 4_294_971_392),
        ("99999999999999999999999", u64::MAX),
    ] {
        let error = error_of(first(given));
        assert!(
            matches!(error, SaslError::IterationCount { iterations: found, .. } if found == iterations),
            "{given}: {error}"
        );
    }
    for given in ["", "-1", "+4096", "4e6", "٤٠٩٦"] {
        let error = error_of(first(given));
        assert!(matches!(error, SaslError::Malformed { .. }), "{given}: {error}");
    }
}

#[test]
fn messages_that_make_no_sense_are_errors() {
    let whole = SERVER_FIRST.as_bytes();
    for length in 0..whole.len() - 4 {
        // Anything short of a whole iteration count.
        client(Hash::Sha256).prove(&whole[..length]).unwrap_err();
    }
    for (message, what) in [
        (format!("m=1,{SERVER_FIRST}"), "no nonce"),
        (SERVER_FIRST.replace(",s=", ",t="), "no salt"),
        (SERVER_FIRST.replace("W22Z", "W?2Z"), "not base64"),
        (SERVER_FIRST.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""), "is empty"),
        (format!("{SERVER_FIRST},x={}", "x".repeat(5_000)), "larger"),
    ] {
        let error = error_of(&message);
        assert!(
            matches!(error, SaslError::Malformed { what: found } if found.contains(what)),
            "{message}: {error}"
        );
    }
    assert!(matches!(error_of(b"r=\xff"), SaslError::Malformed { .. }));
}

#[test]
fn nonces_differ_and_names_cannot_pass_for_attributes() {
    let password = Secret::new("p");
    let message = || {
        ClientFirst::new(Hash::Sha256, "a,r=x=", &password)
            .unwrap()
            .message()
    };
    let (one, other) = (message(), message());
    assert!(one.starts_with("n,,n=a=2Cr=3Dx=3D,r="), "{one}");
    assert_ne!(one, other);
}
