//! Addresses of vendors in the configuration: where a token may be sent.

use reqwest::Url;

use crate::provider::is_loopback;

/// Reads a base address. The error completes a sentence that names the key.
pub(super) fn judge(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => {
            return Err(
                "is http:// and the token would cross the network readable by anyone; use https://, or a \
                        loopback address"
                    .to_owned(),
            );
        }
        _ => return Err("must begin with https://".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user name or password".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_this_machine_only() {
        for good in
            ["https://api.telegram.org", "http://127.0.0.1:8081", "http://localhost:1/", "http://[::1]/x"]
        {
            assert!(judge(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.telegram.org",
            "http://127.0.0.1.example.org",
            "http://10.0.0.1",
            "ftp://localhost",
            "https://u:p@example.org",
            "nonsense",
        ] {
            assert!(judge(bad).is_err(), "{bad}");
        }
    }
}
