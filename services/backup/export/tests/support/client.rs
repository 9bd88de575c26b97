//! A small NBD client that says what it is told to, sense or nonsense.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
pub const GO: u32 = 7;
pub const STRUCTURED: u32 = 8;
pub const READ: u16 = 0;
pub const WRITE: u16 = 1;

pub struct Client(pub UnixStream);

/// A simple reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Simple {
    pub errno: u32,
    pub cookie: u64,
}

pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

pub fn go(name: &str) -> Vec<u8> {
    [string(name), vec![0, 0]].concat()
}

pub fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

impl Client {
    /// Connects and takes the greeting.
    pub async fn connect(socket: &Path) -> io::Result<Client> {
        let mut client = Client(UnixStream::connect(socket).await?);
        let mut greeting = [0; 18];
        client.0.read_exact(&mut greeting).await?;
        assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\x00\x03");
        client.0.write_all(&3u32.to_be_bytes()).await?;
        Ok(client)
    }

    /// Connects and goes to an export, with simple replies.
    pub async fn at(socket: &Path, export: &str) -> Client {
        let mut client = Client::connect(socket).await.unwrap();
        client.option(GO, &go(export)).await.unwrap();
        while client.option_reply().await.unwrap().0 != 1 {}
        client
    }

    pub async fn option(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let mut bytes = IHAVEOPT.to_be_bytes().to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.0.write_all(&bytes).await
    }

    pub async fn option_reply(&mut self) -> io::Result<(u32, Vec<u8>)> {
        assert_eq!(self.0.read_u64().await?, 0x0003_e889_0455_65a9);
        let _option = self.0.read_u32().await?;
        let kind = self.0.read_u32().await?;
        let mut data = vec![0; self.0.read_u32().await? as usize];
        self.0.read_exact(&mut data).await?;
        Ok((kind, data))
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub async fn simple(&mut self) -> Simple {
        assert_eq!(self.0.read_u32().await.unwrap(), 0x6744_6698);
        let errno = self.0.read_u32().await.unwrap();
        Simple { errno, cookie: self.0.read_u64().await.unwrap() }
    }

    pub async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Whether the server closes the connection, whatever it says before.
    pub async fn is_dropped(&mut self) -> bool {
        let mut rest = [0; 4096];
        loop {
            match self.0.read(&mut rest).await {
                Ok(0) | Err(_) => return true,
                Ok(_) => {}
            }
        }
    }
}
