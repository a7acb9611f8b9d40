//! A WebSocket for the tests of subscriptions.

use serde_json::Value;

/// A WebSocket with nothing but a socket: one text frame out, text frames in (RFC 6455).
pub(crate) struct Socket(tokio::net::TcpStream);

impl Socket {
    pub(crate) async fn open(addr: std::net::SocketAddr) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let hello = format!(
            "GET / HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(hello.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        Socket(stream)
    }

    pub(crate) async fn send(&mut self, value: Value) {
        use tokio::io::AsyncWriteExt;
        let text = value.to_string();
        let len = u8::try_from(text.len()).ok().filter(|l| *l < 126).unwrap();
        // FIN and text; masked, by a mask of zeros.
        let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Value {
        use tokio::io::AsyncReadExt;
        loop {
            let kind = self.0.read_u8().await.unwrap();
            let len = match self.0.read_u8().await.unwrap() {
                126 => u64::from(self.0.read_u16().await.unwrap()),
                127 => self.0.read_u64().await.unwrap(),
                short => u64::from(short),
            };
            let mut data = vec![0; usize::try_from(len).unwrap()];
            self.0.read_exact(&mut data).await.unwrap();
            if kind == 0x81 {
                return serde_json::from_slice(&data).unwrap();
            }
        }
    }
}
