//! Which request goes where, and what every request passes first.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::X_CONTENT_TYPE_OPTIONS;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kachet_core::storage::Storage;
use tokio::time::timeout;

use super::activity::Activity;
use super::problem::Problem;
use super::{Shared, access, fetch, listing, record, topics};
use crate::transport::Transport;

pub(super) fn build<T: Transport, S: Storage + 'static>(shared: &Arc<Shared<T, S>>) -> Router {
    let router = Router::new()
        .route("/v1/topics", get(topics::list::<T, S>))
        .route("/v1/topics/{topic}", get(topics::topic::<T, S>))
        .route("/v1/topics/{topic}/{partition}", get(topics::partition::<T, S>))
        .route(
            "/v1/topics/{topic}/{partition}/records",
            get(listing::list::<T, S>),
        )
        .route(
            "/v1/topics/{topic}/{partition}/records/{offset}",
            get(record::get::<T, S>),
        )
        .route("/v1/fetch", post(fetch::fetch::<T, S>))
        .method_not_allowed_fallback(async || Problem::method())
        .fallback(async || Problem::no_such_resource())
        .layer(from_fn_with_state(Arc::clone(shared), admit::<T, S>))
        .with_state(Arc::clone(shared));
    match shared.settings.cors_origins.layer() {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Lets a request in that may be answered, and sees that its answer is begun in time and taken in time.
async fn admit<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    request: Request,
    next: Next,
) -> Response {
    let activity = request.extensions().get::<Activity>().cloned();
    let waiting = activity.map(|activity| activity.begin());
    let limits = &shared.settings.limits;
    let mut place = None;
    let mut response = match shared.judge(&request) {
        Err(problem) => problem.into_response(),
        Ok(()) => match Arc::clone(&shared.places).try_acquire_owned() {
            Err(_) => Problem::too_busy().into_response(),
            Ok(taken) => {
                place = Some(taken);
                match timeout(limits.answer_timeout, next.run(request)).await {
                    Ok(response) => response,
                    Err(_) => Problem::late().into_response(),
                }
            }
        },
    };
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    shared.figures.one_answer(response.status());
    match waiting {
        Some(waiting) => response.map(|body| Body::new(waiting.send(body, place))),
        None => response,
    }
}

impl<T: Transport, S: Storage + 'static> Shared<T, S> {
    fn judge(&self, request: &Request) -> Result<(), Problem> {
        match &self.settings.bearer_tokens {
            Some(tokens) => tokens.check(request.headers()).map_err(Problem::refused),
            None if self.settings.allows_anonymous => Ok(()),
            // The certificate says which name it is.
            None if self.settings.tls.is_some() => Ok(()),
            None if access::names_this_machine(request.uri(), request.headers()) => Ok(()),
            None => Err(Problem::wrong_host()),
        }
    }
}

/// An answer without anything particular.
pub(super) fn answer(media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(
        axum::http::header::CONTENT_TYPE,
        HeaderValue::from_static(media_type),
    );
    headers.insert(
        axum::http::header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache"),
    );
    response
}
