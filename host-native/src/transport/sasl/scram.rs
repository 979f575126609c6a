//! SCRAM-SHA-256 and SCRAM-SHA-512: both sides prove that they know the password, and neither sends it.
//!
//! Source: RFC 5802 (the messages), RFC 7677 (SHA-256), KIP-84 (in Kafka). Without channel binding, which Kafka does not
//! have. Passwords are taken as their UTF-8 bytes, without `SASLprep`, because that is how Kafka stores them.

use core::num::NonZeroU32;
use core::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::{SaslError, Secret, shown};

/// Kafka's minimum is RFC 7677's; its maximum is 16384. What is above it here takes about half a second.
const ITERATIONS: RangeInclusive<u32> = 4096..=1_000_000;
/// Kafka's messages have less than 200 bytes.
const MESSAGE_LIMIT_BYTES: usize = 4096;
/// As hard to guess as the hash is to invert.
const NONCE_BYTES: usize = 24;
/// "n,," in base64: no channel binding, and no other user to act for.
const NO_CHANNEL_BINDING: &str = "biws";
const GS2_HEADER: &str = "n,,";

/// Which hash is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

/// The client's side of one login, before the broker has answered.
pub(super) struct ClientFirst {
    hash: Hash,
    password: Secret,
    nonce: String,
    /// Without the GS2 header, as it is signed.
    bare: String,
}

/// After its proof: what is left is to verify the broker's.
#[derive(Debug)]
pub(super) struct ClientFinal {
    message: String,
    server_key: hmac::Key,
    signed: String,
}

impl ClientFirst {
    pub(super) fn new(hash: Hash, username: &str, password: &Secret) -> Result<Self, SaslError> {
        let mut random = [0; NONCE_BYTES];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| SaslError::Random)?;
        Ok(Self::with_nonce(
            hash,
            username,
            password,
            STANDARD.encode(random),
        ))
    }

    fn with_nonce(hash: Hash, username: &str, password: &Secret, nonce: String) -> Self {
        // Both separate attributes, so a name spells them out (RFC 5802, 5.1).
        let username = username.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            password: password.clone(),
            bare: format!("n={username},r={nonce}"),
            nonce,
        }
    }

    pub(super) fn message(&self) -> String {
        format!("{GS2_HEADER}{}", self.bare)
    }

    /// The proof, for the broker's first message. Computes for as long as the broker's iteration count says.
    pub(super) fn prove(self, server_first: &[u8]) -> Result<ClientFinal, SaslError> {
        let server_first = text(server_first)?;
        let ServerFirst {
            nonce,
            salt,
            iterations,
        } = ServerFirst::parse(server_first, &self.nonce)?;
        let length = self.hash.digest().output_len();
        let mut salted_password = Zeroizing::new([0; digest::MAX_OUTPUT_LEN]);
        let salted_password = &mut salted_password[..length];
        let password = self.password.expose().as_bytes();
        pbkdf2::derive(self.hash.pbkdf2(), iterations, &salt, password, salted_password);

        let salted_key = hmac::Key::new(self.hash.hmac(), salted_password);
        let client_key = hmac::sign(&salted_key, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let without_proof = format!("c={NO_CHANNEL_BINDING},r={nonce}");
        let signed = format!("{},{server_first},{without_proof}", self.bare);
        let stored_key = hmac::Key::new(self.hash.hmac(), stored_key.as_ref());
        let client_signature = hmac::sign(&stored_key, signed.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(client_signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = hmac::sign(&salted_key, b"Server Key");
        Ok(ClientFinal {
            message: format!("{without_proof},p={}", STANDARD.encode(proof)),
            server_key: hmac::Key::new(self.hash.hmac(), server_key.as_ref()),
            signed,
        })
    }
}

impl ClientFinal {
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the broker's last message proves that it knows the password too. Compares in constant time.
    pub(super) fn verify(&self, server_final: &[u8]) -> Result<(), SaslError> {
        let server_final = text(server_final)?;
        let first = server_final.split(',').next().unwrap_or_default();
        match first.split_once('=') {
            Some(("v", signature)) => {
                let malformed = |_| SaslError::Malformed {
                    what: "its signature is not base64",
                };
                let signature = STANDARD.decode(signature).map_err(malformed)?;
                hmac::verify(&self.server_key, self.signed.as_bytes(), &signature)
                    .map_err(|_| SaslError::ServerSignature)
            }
            Some(("e", reason)) => Err(SaslError::Refused {
                message: shown(reason),
            }),
            _ => Err(SaslError::Malformed {
                what: "there is neither a signature nor an error",
            }),
        }
    }
}

/// The broker's first message.
struct ServerFirst<'m> {
    nonce: &'m str,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'m> ServerFirst<'m> {
    fn parse(message: &'m str, client_nonce: &str) -> Result<Self, SaslError> {
        let malformed = |what| SaslError::Malformed { what };
        let mut attributes = message.split(',');
        // In this order; a mandatory extension would stand in front. Others, behind, may be ignored.
        let mut attribute = |name: &str| {
            let attribute = attributes.next()?;
            attribute.strip_prefix(name)?.strip_prefix('=')
        };
        let nonce = attribute("r").ok_or_else(|| malformed("there is no nonce where it should be"))?;
        let salt = attribute("s").ok_or_else(|| malformed("there is no salt where it should be"))?;
        let iterations =
            attribute("i").ok_or_else(|| malformed("there is no iteration count where it should be"))?;
        if nonce.strip_prefix(client_nonce).is_none_or(str::is_empty) {
            return Err(SaslError::Nonce);
        }
        let salt = STANDARD
            .decode(salt)
            .map_err(|_| malformed("its salt is not base64"))?;
        if salt.is_empty() {
            return Err(malformed("its salt is empty"));
        }
        Ok(Self {
            nonce,
            salt,
            iterations: accepted_iterations(iterations)?,
        })
    }
}

fn accepted_iterations(given: &str) -> Result<NonZeroU32, SaslError> {
    let malformed = SaslError::Malformed {
        what: "its iteration count is not a number",
    };
    if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed);
    }
    // Digits, so what cannot be read is too large.
    let iterations = given.parse().unwrap_or(u64::MAX);
    u32::try_from(iterations)
        .ok()
        .filter(|iterations| ITERATIONS.contains(iterations))
        .and_then(NonZeroU32::new)
        .ok_or(SaslError::IterationCount {
            iterations,
            accepted: ITERATIONS,
        })
}

fn text(message: &[u8]) -> Result<&str, SaslError> {
    if message.len() > MESSAGE_LIMIT_BYTES {
        return Err(SaslError::Malformed {
            what: "it is larger than any of this mechanism",
        });
    }
    core::str::from_utf8(message).map_err(|_| SaslError::Malformed {
        what: "it is not UTF-8",
    })
}

#[cfg(test)]
mod tests;
