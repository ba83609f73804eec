//! Images a person attaches: which paths, which kinds of file, which models see.
//!
//! The bytes come through the broker and are recognised by their first bytes, not by their name. Nothing is decoded:
//! an image is for the vendor to parse.

use super::hands::{FetchFault, Hands};
use crate::model::Part;

/// Largest image: what the strictest of the vendors takes, before base64.
pub const MAX_IMAGE: u64 = 3_750_000;
/// Images of one message.
pub const MAX_IMAGES: usize = 8;

/// Why an image is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageFault {
    /// The model does not see.
    #[error(
        "cannot attach {path}: {model} is not known to see images; choose another with --model, or set \
         agents.defaults.vision to true"
    )]
    Blind {
        /// The image.
        path: String,
        /// The model.
        model: String,
    },
    /// The broker did not give it.
    #[error("cannot attach {path}: {cause}")]
    Fetch {
        /// The image.
        path: String,
        /// Why.
        cause: FetchFault,
    },
    /// Not a kind that vendors take.
    #[error("cannot attach {path}: it is no PNG, JPEG, GIF or WebP file")]
    Kind {
        /// The image.
        path: String,
    },
    /// More than a message may have.
    #[error("cannot attach {path}: a message may have {MAX_IMAGES} images")]
    TooMany {
        /// The image.
        path: String,
    },
}

/// Fetches an image of the workspace for a message to `model`.
pub async fn attach(hands: &dyn Hands, path: &str, model: &str, sees: bool) -> Result<Part, ImageFault> {
    if !sees {
        return Err(ImageFault::Blind { path: path.to_owned(), model: model.to_owned() });
    }
    let bytes = hands
        .fetch(path, MAX_IMAGE)
        .await
        .map_err(|cause| ImageFault::Fetch { path: path.to_owned(), cause })?;
    let media_type = kind(&bytes).ok_or_else(|| ImageFault::Kind { path: path.to_owned() })?;
    Ok(Part::Image { media_type: media_type.to_owned(), data: base64(&bytes) })
}

/// Paths of images written as `![…](path)`; addresses are left alone, they are not files of the workspace.
#[must_use]
pub fn mentioned(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find("![") {
        rest = rest.get(begin + 2..).unwrap_or_default();
        let Some(middle) = rest.find("](") else { break };
        let caption = rest.get(..middle).unwrap_or_default();
        if caption.contains('\n') || caption.contains("![") {
            continue;
        }
        let target = rest.get(middle + 2..).unwrap_or_default();
        let Some(end) = target.find([')', '\n']) else { break };
        let path = target.get(..end).unwrap_or_default().trim();
        if !path.is_empty() && !path.contains("://") && !path.starts_with("data:") {
            paths.push(path.to_owned());
        }
        rest = target.get(end..).unwrap_or_default();
    }
    paths
}

/// Whether a model of this name is known to see. Said by name, because few vendors say it in their lists.
#[must_use]
pub fn known_to_see(model: &str) -> bool {
    const SEEING: &[&str] = &[
        "gpt-4o",
        "gpt-4.1",
        "gpt-4-turbo",
        "gpt-5",
        "o3",
        "o4-mini",
        "claude-3",
        "claude-4",
        "claude-5",
        "claude-opus-",
        "claude-sonnet-",
        "claude-haiku-",
        "gemini",
        "llava",
        "bakllava",
        "pixtral",
        "mistral-small-3",
        "mistral-medium-3",
        "-vl",
        "vl-",
        "qwen2.5vl",
        "qwen3vl",
        "vision",
        "llama-4",
        "llama4",
        "gemma-3",
        "gemma3",
        "grok-4",
        "glm-4v",
        "glm-4.5v",
        "minicpm-v",
        "moondream",
    ];
    let model = model.to_ascii_lowercase();
    let name = model.rsplit('/').next().unwrap_or(&model);
    SEEING.iter().any(|part| name.contains(part))
}

fn kind(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Some("image/gif")
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

/// Base64 with padding (RFC 4648, section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            (0..3).fold(0u32, |group, index| group << 8 | u32::from(chunk.get(index).copied().unwrap_or(0)));
        for place in 0..4usize {
            if place > chunk.len() {
                out.push('=');
                continue;
            }
            let index = group >> (18 - 6 * place) & 63;
            let letter = usize::try_from(index).ok().and_then(|index| ALPHABET.get(index));
            out.push(char::from(letter.copied().unwrap_or(b'=')));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fakes::FakeHands;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn only_local_paths_are_images() {
        let text = "see ![a](x.png) and ![](dir/y z.jpg) but ![](https://h/z.png) [no](n.png) ![open](";
        assert_eq!(mentioned(text), ["x.png", "dir/y z.jpg"]);
        assert!(mentioned("![").is_empty() && mentioned("![é](").is_empty() && mentioned("![]()").is_empty());
    }

    #[test]
    fn seeing_models_are_known_by_name() {
        for model in ["anthropic/claude-sonnet-4-5", "gpt-4o-mini", "google/gemini-2.5-flash", "qwen2.5vl:7b"]
        {
            assert!(known_to_see(model), "{model}");
        }
        for model in ["deepseek-chat", "llama3.1:8b", "gpt-3.5-turbo", "mistral-large", "vision/deepseek-r1"]
        {
            assert!(!known_to_see(model), "{model}");
        }
    }

    #[tokio::test]
    async fn image_is_known_by_its_bytes_and_each_fault_says_what_to_do() {
        let hands = FakeHands::with_files(&[("a.txt", b"\x89PNG\r\n\x1a\nrest"), ("b.png", b"hello")]);
        let part = attach(&hands, "a.txt", "m", true).await.unwrap();
        assert!(matches!(part, Part::Image { media_type, .. } if media_type == "image/png"));
        assert!(matches!(attach(&hands, "b.png", "m", true).await, Err(ImageFault::Kind { .. })));
        assert!(matches!(attach(&hands, "c.png", "m", true).await, Err(ImageFault::Fetch { .. })));
        let blind = attach(&hands, "a.txt", "deepseek-chat", false).await.unwrap_err().to_string();
        assert!(blind.contains("deepseek-chat") && blind.contains("--model"), "{blind}");
    }
}
