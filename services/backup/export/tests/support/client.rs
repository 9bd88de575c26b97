//! A small NBD client that sends what a test wants, valid or not.

use std::io;
use std::path::Path;

use backup_repository::nbd_wire::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

pub struct Client(pub UnixStream);

/// The data of `OPT_GO` for an export.
pub fn go(export: &str) -> Vec<u8> {
    InfoRequest { export, info_types: Vec::new() }.encode()
}

pub fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    Request { flags, command, cookie, offset, length }.encode().to_vec()
}

impl Client {
    /// Connects and reads the greeting.
    pub async fn connect(socket: &Path) -> io::Result<Client> {
        let mut client = Client(UnixStream::connect(socket).await?);
        let Greeting { flags } = Greeting::read(&mut client.0).await?;
        assert_eq!(flags, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        client.0.write_u32(flags.into()).await?;
        Ok(client)
    }

    /// Connects and chooses an export, with simple replies.
    pub async fn at(socket: &Path, export: &str) -> Client {
        let mut client = Client::connect(socket).await.unwrap();
        client.option(OPT_GO, &go(export)).await.unwrap();
        while client.option_reply().await.unwrap().0 != REP_ACK {}
        client
    }

    pub async fn option(&mut self, number: u32, data: &[u8]) -> io::Result<()> {
        self.0.write_all(&option(number, data)).await
    }

    /// The kind of a reply to an option, and its data.
    pub async fn option_reply(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let header = OptionReplyHeader::read(&mut self.0).await?;
        let mut data = vec![0; header.length as usize];
        self.0.read_exact(&mut data).await?;
        Ok((header.kind, data))
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub async fn simple(&mut self) -> SimpleReply {
        match ReplyHeader::read(&mut self.0).await.unwrap() {
            ReplyHeader::Simple(reply) => reply,
            ReplyHeader::Chunk(chunk) => panic!("a chunk of a structured reply: {chunk:?}"),
        }
    }

    pub async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Whether the server closes the connection, whatever it sends before.
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
