//! A scraper of the metrics endpoint, and of anything else that answers HTTP/1.1.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One answer over HTTP.
#[derive(Debug)]
pub struct Page {
    /// Status code.
    pub status: u16,
    /// The `content-type` header.
    pub content_type: String,
    /// The body.
    pub body: String,
}

/// Gets a page of `address`.
pub async fn get(address: &str, path: &str, accept: &str) -> Page {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the listener takes connections");
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("a request is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .await
        .expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("an answer has a status");
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    assert!(
        !header("transfer-encoding").contains("chunked"),
        "chunks are not read here"
    );
    Page {
        status,
        content_type: header("content-type"),
        body: body.to_owned(),
    }
}

/// The samples of a page in the Prometheus text form: series with labels to value.
#[must_use]
pub fn samples(body: &str) -> BTreeMap<String, f64> {
    body.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
            (
                series.to_owned(),
                value.parse().expect("a sample's value is a number"),
            )
        })
        .collect()
}

/// The sum of every series of one metric.
#[must_use]
pub fn total(body: &str, metric: &str) -> f64 {
    samples(body)
        .iter()
        .filter(|(series, _)| series.split('{').next() == Some(metric))
        .map(|(_, value)| value)
        .sum()
}
