//! A client that speaks NATS by hand (https://docs.nats.io/reference/reference-protocols/nats-protocol), so that every
//! refusal of the server is seen, in order, and nothing is retried.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;

const HUNG_UP: &str = "the server hung up";
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) reply: Option<String>,
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// What the server sent until it answered our ping.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) messages: Vec<Message>,
    pub(crate) errors: Vec<String>,
}

pub(crate) struct RawClient {
    stream: BufReader<TcpStream>,
    subscriptions: u32,
}

impl RawClient {
    /// Connects with a key, or without one. The error is the server's.
    pub(crate) fn connect(url: &str, key: Option<&KeyPair>) -> Result<RawClient, String> {
        let address = url.strip_prefix("nats://").expect("a nats url");
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("set");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("set");
        let mut client = RawClient { stream: BufReader::new(stream), subscriptions: 0 };
        let info = client.line().ok_or(HUNG_UP)?;
        let info: serde_json::Value =
            serde_json::from_str(info.strip_prefix("INFO ").expect("info first")).expect("JSON");
        let mut hello = serde_json::json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "protocol": 1,
            "lang": "client", "version": "1",
        });
        if let Some(key) = key {
            let nonce = info["nonce"].as_str().expect("a server with nkeys sends a nonce");
            let signature = key.sign(nonce.as_bytes()).expect("signed");
            hello["nkey"] = key.public_key().into();
            hello["sig"] = BASE64URL_NOPAD.encode(&signature).into();
        }
        client.write(&format!("CONNECT {hello}\r\n"));
        let received = client.round();
        received.errors.first().map_or(Ok(()), |error| Err(error.clone()))?;
        Ok(client)
    }

    /// Publishes, and returns whether the server allowed it.
    pub(crate) fn may_publish(&mut self, subject: &str) -> bool {
        self.write(&format!("PUB {subject} 2\r\n{{}}\r\n"));
        self.was_allowed("Publish", subject)
    }

    /// Subscribes, returns whether the server allowed it, and unsubscribes.
    pub(crate) fn may_subscribe(&mut self, subject: &str) -> bool {
        let id = self.subscribe(subject);
        let allowed = self.was_allowed("Subscription", subject);
        self.write(&format!("UNSUB {id}\r\n"));
        allowed
    }

    /// Subscribes.
    pub(crate) fn subscribe(&mut self, subject: &str) -> u32 {
        self.subscriptions += 1;
        self.write(&format!("SUB {subject} {}\r\n", self.subscriptions));
        self.subscriptions
    }

    /// Publishes with a reply subject and, where given, raw header lines.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, headers: &[&str], body: &str) {
        if headers.is_empty() {
            self.write(&format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len()));
            return;
        }
        let headers = format!("NATS/1.0\r\n{}\r\n\r\n", headers.join("\r\n"));
        let total = headers.len() + body.len();
        self.write(&format!("HPUB {subject} {reply} {} {total}\r\n{headers}{body}\r\n", headers.len()));
    }

    /// Everything received until a ping comes back: the server handles what we sent in order.
    pub(crate) fn round(&mut self) -> Received {
        self.write("PING\r\n");
        let mut received = Received::default();
        loop {
            let Some(line) = self.line() else {
                received.errors.push(HUNG_UP.into());
                return received;
            };
            let mut words = line.split(' ');
            match words.next().unwrap_or_default() {
                "PONG" => return received,
                "PING" => self.write("PONG\r\n"),
                "-ERR" => {
                    received.errors.push(line.trim_start_matches("-ERR ").to_string());
                    if line.contains("Authorization") {
                        return received;
                    }
                }
                "MSG" => received.messages.push(self.message(words.collect(), false)),
                "HMSG" => received.messages.push(self.message(words.collect(), true)),
                _ => {}
            }
        }
    }

    /// Reads until the server closes the connection; panics where it does not.
    pub(crate) fn wait_for_end(&mut self) {
        while self.line().is_some() {}
    }

    /// Rounds until a message is there.
    pub(crate) fn wait_for_message(&mut self) -> Message {
        let until = Instant::now() + ANSWER_MAX;
        loop {
            let received = self.round();
            if let Some(message) = received.messages.into_iter().next() {
                return message;
            }
            assert!(received.errors.is_empty(), "{:?}", received.errors);
            assert!(Instant::now() < until, "no message came");
        }
    }

    fn message(&mut self, words: Vec<&str>, with_headers: bool) -> Message {
        let number = |text: &str| text.parse::<usize>().expect("a length");
        let total = number(words.last().expect("a length"));
        let lengths = if with_headers { 2 } else { 1 };
        let headers_length = if with_headers { number(words[words.len() - 2]) } else { 0 };
        let reply = (words.len() == 3 + lengths).then(|| words[2].to_string());
        let subject = words[0].to_string();
        let mut bytes = vec![0; total + 2];
        self.stream.read_exact(&mut bytes).expect("the whole message");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = text(&bytes[..headers_length]);
        Message { subject, reply, headers, body: text(&bytes[headers_length..total]) }
    }

    fn was_allowed(&mut self, what: &str, subject: &str) -> bool {
        let refusal = format!("'Permissions Violation for {what} to \"{subject}\"'");
        let received = self.round();
        let other = received.errors.iter().find(|error| **error != refusal);
        assert_eq!(other, None, "an unexpected error of the server");
        received.errors.is_empty()
    }

    fn write(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("the server reads");
    }

    /// A line; none where the server hung up.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_string()),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("the server answers: {error}"),
        }
    }
}
