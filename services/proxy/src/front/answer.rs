//! What the client gets when no machine answers: a plain page that says why.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode, Version};
use proxy_domain::DownReason;
use proxy_domain::framing::Violation;
use proxy_domain::request::Refusal;
use thiserror::Error;

/// Why a request has no answer from a machine. Its text is the sentence on the page.
#[derive(Debug, Error)]
pub(super) enum Problem {
    #[error("{0}")]
    Framing(Violation),
    #[error("{0}")]
    Request(#[from] Refusal),
    #[error("no site of this name is here")]
    UnknownHost,
    #[error("this site is {why}")]
    Down { why: DownReason, retry_after: Duration },
    #[error("the site cannot be reached")]
    Unreachable,
    #[error("the site broke off before it answered")]
    BrokeOff,
    #[error("the site switched to a protocol that was not asked for")]
    WrongProtocol,
    #[error("the site did not answer in time")]
    Silent,
    #[error("the request body broke off or is malformed")]
    BodyBroken,
    #[error("the request body did not arrive in time")]
    BodyTooSlow,
}

impl Problem {
    fn status(&self) -> StatusCode {
        let code = match self {
            Self::Framing(violation) => violation.status(),
            Self::Request(refusal) => refusal.status(),
            Self::BodyBroken => 400,
            Self::UnknownHost => 404,
            Self::BodyTooSlow => 408,
            Self::Unreachable | Self::BrokeOff | Self::WrongProtocol => 502,
            Self::Down { .. } => 503,
            Self::Silent => 504,
        };
        StatusCode::from_u16(code).expect("all of these are status codes")
    }

    /// Whether the connection cannot be trusted to be in step any more.
    fn ends_connection(&self) -> bool {
        matches!(self, Self::Framing(_) | Self::Request(_) | Self::BodyBroken | Self::BodyTooSlow)
    }

    /// The page. `id` is the request id; `version` is what the client speaks.
    pub(super) fn page(&self, id: &str, version: Version) -> Response<Bytes> {
        let status = self.status();
        let mut text = format!("{status}\n\n{self}.\n");
        let retry_after = match self {
            Self::Down { retry_after, .. } => Some(whole_seconds(*retry_after)),
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
        headers.insert("x-request-id", HeaderValue::from_str(id).expect("digits are a value"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.ends_connection() && version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        page
    }
}

/// At least one: "try again at once" is no advice.
fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_why_and_when_and_carries_the_request_id() {
        let down = Problem::Down { why: DownReason::Starting, retry_after: Duration::from_millis(1500) };
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
    fn an_unsound_request_ends_the_connection_but_http_2_has_no_word_for_that() {
        let refused = Problem::Framing(Violation::LengthAndEncoding);
        assert_eq!(refused.page("1", Version::HTTP_11).headers()["connection"], "close");
        assert!(!refused.page("1", Version::HTTP_2).headers().contains_key("connection"));
    }
}
