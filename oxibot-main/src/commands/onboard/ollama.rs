//! Finds an ollama that runs on this machine, by one plain request over the loopback interface.
//!
//! It speaks just enough HTTP/1.0 for that; everything else goes through the provider module.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Where ollama listens unless told otherwise.
pub const OLLAMA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 11_434);

/// Largest answer read: whoever listens there is not known to be ollama.
const MAX_ANSWER: u64 = 1024 * 1024;

/// Most models taken from an answer.
const MAX_MODELS: usize = 1000;

const CONNECT: Duration = Duration::from_millis(300);
const ANSWER: Duration = Duration::from_secs(2);

/// The models of the ollama at an address, newest first; `None` when there is none. Blocks for about two seconds at
/// most between two pieces of an answer.
#[must_use]
pub fn find(address: SocketAddr) -> Option<Vec<String>> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    stream.set_write_timeout(Some(ANSWER)).ok()?;
    // In one piece: a server that answers the first one and closes would reset the connection.
    let request = format!("GET /api/tags HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).ok()?;
    models(&answer)
}

fn models(answer: &[u8]) -> Option<Vec<String>> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end)?;
    let status = head.split(|byte| *byte == b'\r').next()?;
    if !status.starts_with(b"HTTP/1.") || !status.windows(5).any(|window| window == b" 200 ") {
        return None;
    }
    let body: Value = serde_json::from_slice(body.get(4..)?).ok()?;
    let names = body.get("models")?.as_array()?.iter().filter_map(|model| model.get("name")?.as_str());
    // A name goes to the terminal and into the configuration.
    let fit =
        |name: &&str| !name.is_empty() && name.len() < 200 && name.chars().all(|c| c.is_ascii_graphic());
    Some(names.filter(fit).take(MAX_MODELS).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn serve(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        (address, server)
    }

    #[test]
    fn a_running_ollama_is_found_with_its_models() {
        let (address, server) = serve(
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"models\":[{\"name\":\"llama3.2:latest\"},{\"name\":\"bad\\u001b[31m\"},{\"name\":\"qwen3:4b\"}]}",
        );
        assert_eq!(find(address), Some(vec!["llama3.2:latest".to_owned(), "qwen3:4b".to_owned()]));
        assert!(server.join().unwrap().starts_with("GET /api/tags HTTP/1.0\r\n"));
    }

    #[test]
    fn whatever_else_listens_there_is_no_ollama() {
        for answer in
            ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 404 Not Found\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n<html>"]
        {
            let (address, server) = serve(answer);
            assert_eq!(find(address), None, "{answer}");
            server.join().unwrap();
        }
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(find(free), None);
    }
}
