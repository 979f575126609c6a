//! What a request asks for: the parts of its path and its query.

use core::str::FromStr;
use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::extract::RawPathParams;
use axum::extract::rejection::RawPathParamsRejection;

use super::problem::Problem;
use crate::client::Isolation;

/// Queries have fewer.
const PARAMETERS_LIMIT: usize = 16;

/// The parts of a path.
pub(super) struct PathParts(RawPathParams);

impl PathParts {
    pub(super) fn new(given: Result<RawPathParams, RawPathParamsRejection>) -> Result<Self, Problem> {
        // The only thing that can be wrong with it.
        given
            .map(Self)
            .map_err(|_| Problem::parameter("path", "is not UTF-8"))
    }

    fn get(&self, name: &'static str) -> &str {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn topic(&self) -> &str {
        self.get("topic")
    }

    pub(super) fn partition(&self) -> Result<i32, Problem> {
        number("partition", self.get("partition"))
    }

    pub(super) fn offset(&self) -> Result<i64, Problem> {
        number("offset", self.get("offset"))
    }
}

/// The parameters of a query. None may be given twice, or be one that is not known, so that nothing is overlooked that
/// somebody relies on.
pub(super) struct Query<'q>(BTreeMap<&'static str, Cow<'q, str>>);

impl<'q> Query<'q> {
    pub(super) fn parse(query: Option<&'q str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        let given = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        for (name, value) in given.take(PARAMETERS_LIMIT) {
            let Some(known) = known.iter().find(|known| **known == name) else {
                return Err(Problem::parameter(
                    &name,
                    &format!("is not known here; known are: {}", known.join(", ")),
                ));
            };
            if found.insert(*known, value).is_some() {
                return Err(Problem::parameter(known, "is given twice"));
            }
        }
        Ok(Self(found))
    }

    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(AsRef::as_ref)
    }

    pub(super) fn number<N: FromStr>(&self, name: &'static str) -> Result<Option<N>, Problem> {
        self.text(name).map(|given| number(name, given)).transpose()
    }

    /// A number from 1 to `limit`.
    pub(super) fn count(&self, name: &'static str, default: u64, limit: u64) -> Result<u64, Problem> {
        match self.number(name)? {
            None => Ok(default.min(limit)),
            Some(count) if (1..=limit).contains(&count) => Ok(count),
            Some(_) => Err(Problem::parameter(
                name,
                &format!("is a number from 1 to {limit}"),
            )),
        }
    }

    pub(super) fn isolation(&self) -> Result<Isolation, Problem> {
        match self.text("isolation") {
            None | Some("uncommitted") => Ok(Isolation::ReadUncommitted),
            Some("committed") => Ok(Isolation::ReadCommitted),
            Some(_) => Err(Problem::parameter(
                "isolation",
                "is 'uncommitted', which is the default, or 'committed'",
            )),
        }
    }
}

/// A number without a sign.
fn number<N: FromStr>(name: &'static str, given: &str) -> Result<N, Problem> {
    let is_plain = given.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = is_plain.then(|| given.parse().ok()).flatten();
    parsed.ok_or_else(|| Problem::parameter(name, "is a number from 0 on"))
}
