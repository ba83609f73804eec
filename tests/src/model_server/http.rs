//! Just enough HTTP/1.1 to read one request and to write well-formed and broken answers.

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Request, Wire};

/// Longest head of a request.
const MAX_HEAD: usize = 64 * 1024;

/// Longest body.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Reads one request; none if the peer closed before it was whole.
pub(super) async fn read_request(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(bytes.len() <= MAX_HEAD, "a request's head of more than {MAX_HEAD} bytes");
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a request's head is ASCII");
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) =
        (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    assert_eq!(first.next(), Some("HTTP/1.1"), "{head}");
    let mut headers = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a header has a colon");
        let old = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        assert!(old.is_none(), "header {name} came twice");
    }
    let length: usize =
        headers.get("content-length").map_or(0, |length| length.parse().expect("content-length"));
    assert!(length <= MAX_BODY, "a body of {length} bytes");
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
    assert_eq!(bytes.len(), head_end + length, "bytes after the body");
    let body = serde_json::from_slice(&bytes[head_end..]).unwrap_or(Value::Null);
    Ok(Some(Request { method, path, headers, body, wire: Wire::Unknown, problem: None }))
}

/// Writes a whole answer with its length.
pub(super) async fn write_whole(
    stream: &mut TcpStream,
    status: u16,
    kind: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> io::Result<()> {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}

/// Writes the head of an event stream.
pub(super) async fn begin_stream(stream: &mut TcpStream) -> io::Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n",
        )
        .await
}

/// Writes one chunk.
pub(super) async fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await
}

/// Writes the last chunk.
pub(super) async fn end_stream(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"0\r\n\r\n").await?;
    stream.shutdown().await
}
