//! The error page: what the client gets when there is no response from an upstream, and why.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode, Version};
use proxy_domain::VmDownReason;
use proxy_domain::framing::FramingViolation;
use proxy_domain::request::RequestError;
use thiserror::Error;

/// Why there is no response from an upstream. Its text is the sentence on the page.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("{0}")]
    Framing(FramingViolation),
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error("no site with this name is served here")]
    UnknownHost,
    #[error("this site is {reason}")]
    VmDown { reason: VmDownReason, retry_after: Duration },
    #[error("the site cannot be reached")]
    UpstreamUnreachable,
    #[error("the site closed the connection before it responded")]
    UpstreamAborted,
    #[error("the site switched to a protocol that was not requested")]
    UpgradeProtocolMismatch,
    #[error("the site did not respond in time")]
    UpstreamTimeout,
    #[error("the request body is incomplete or malformed")]
    BodyInvalid,
    #[error("the request body did not arrive in time")]
    BodyTimeout,
}

impl ProxyError {
    fn status(&self) -> StatusCode {
        let code = match self {
            Self::Framing(violation) => violation.status(),
            Self::Request(error) => error.status(),
            Self::BodyInvalid => 400,
            Self::UnknownHost => 404,
            Self::BodyTimeout => 408,
            Self::UpstreamUnreachable | Self::UpstreamAborted | Self::UpgradeProtocolMismatch => 502,
            Self::VmDown { .. } => 503,
            Self::UpstreamTimeout => 504,
        };
        StatusCode::from_u16(code).expect("all of these are status codes")
    }

    /// Whether the start of the next request on the connection is in doubt.
    fn closes_connection(&self) -> bool {
        matches!(self, Self::Framing(_) | Self::Request(_) | Self::BodyInvalid | Self::BodyTimeout)
    }

    /// The page. `id` is the request id; `version` is the client's HTTP version.
    pub(super) fn page(&self, id: &str, version: Version) -> Response<Bytes> {
        let status = self.status();
        let mut text = format!("{status}\n\n{self}.\n");
        let retry_after = match self {
            Self::VmDown { retry_after, .. } => Some(whole_seconds(*retry_after)),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            text.push_str(&format!("Please try again in {seconds} s.\n"));
        }
        text.push_str(&format!("\nrequest {id}\n"));

        let mut page = Response::new(Bytes::from(text));
        *page.status_mut() = status;
        let headers = page.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert("x-request-id", HeaderValue::from_str(id).expect("digits are a valid value"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.closes_connection() && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        page
    }
}

/// Rounded up, and at least one: `Retry-After: 0` would be no advice.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gives_the_reason_the_retry_time_and_the_request_id() {
        let down =
            ProxyError::VmDown { reason: VmDownReason::Starting, retry_after: Duration::from_millis(1500) };
        let page = down.page("4bf9", Version::HTTP_11);
        assert_eq!(page.status(), 503);
        assert_eq!(page.headers()["retry-after"], "2");
        assert_eq!(page.headers()["x-request-id"], "4bf9");
        assert!(!page.headers().contains_key("connection"));
        let text = std::str::from_utf8(page.body()).expect("text");
        assert_eq!(
            text,
            "503 Service Unavailable\n\nthis site is starting.\nPlease try again in 2 s.\n\nrequest 4bf9\n"
        );
    }

    #[test]
    fn an_invalid_request_closes_an_http_1_connection() {
        let refused = ProxyError::Framing(FramingViolation::LengthAndEncoding);
        assert_eq!(refused.page("1", Version::HTTP_11).headers()["connection"], "close");
        assert!(!refused.page("1", Version::HTTP_2).headers().contains_key("connection"));
    }
}
