//! The whole of a call as text, for the person who is to say yes to it. Pure.
//!
//! Nothing is left out and nothing is summed up: a call whose text would be too long to read is not offered for
//! approval at all. Control characters are shown by whoever prints it, who knows where.

use oxibot_proto::message::MAX_APPROVAL_TEXT;

use crate::tools::ToolRequest;
use crate::wire::FilesWork;

/// The text, or nothing when it would be longer than a person can be asked to read.
pub(crate) fn whole(tool: &str, request: &ToolRequest, arguments: &str) -> Option<String> {
    let text = match request {
        ToolRequest::Bash { command, timeout_s, cwd } => {
            // Ours first: what follows is the model's, and could look like anything.
            let place = cwd.as_deref().filter(|cwd| !cwd.is_empty()).unwrap_or(".");
            let limit = timeout_s.map(|seconds| format!(", for at most {seconds} s")).unwrap_or_default();
            format!("in {place}{limit}:\n{command}")
        }
        ToolRequest::Files(FilesWork::Edit { path, old_text, new_text, replace_all }) => {
            let each = if *replace_all { ", wherever it stands" } else { "" };
            format!("edit {path}{each}\n{}{}", marked('-', old_text), marked('+', new_text))
        }
        ToolRequest::Files(FilesWork::Write { path, content }) => {
            format!("write {path}\n{}", marked('+', content))
        }
        // Short, and the same to a person as to the tool.
        ToolRequest::Files(_) | ToolRequest::Web(_) => format!("{tool} {arguments}"),
    };
    (text.len() <= MAX_APPROVAL_TEXT).then_some(text)
}

/// Each line with a mark before it, as in a diff.
fn marked(mark: char, text: &str) -> String {
    let mut marked = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        marked.push(mark);
        marked.push_str(line);
    }
    if !marked.is_empty() && !marked.ends_with('\n') {
        marked.push_str("\n(no newline at the end)\n");
    }
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(tool: &str, arguments: &str) -> Option<String> {
        whole(tool, &crate::tools::parse(tool, arguments).unwrap(), arguments)
    }

    #[test]
    fn command_is_shown_with_where_and_how_long() {
        let shown = text("bash", r#"{"command":"a\nb","cwd":"sub","timeout_s":5}"#).unwrap();
        assert_eq!(shown, "in sub, for at most 5 s:\na\nb");
    }

    #[test]
    fn edit_is_shown_as_a_diff() {
        let shown =
            text("edit_file", r#"{"path":"p","old_text":"a\nb\n","new_text":"c","replace_all":true}"#);
        assert_eq!(shown.unwrap(), "edit p, wherever it stands\n-a\n-b\n+c\n(no newline at the end)\n");
    }

    #[test]
    fn whole_content_is_shown_or_nothing() {
        assert_eq!(text("write_file", r#"{"path":"p","content":"x\n"}"#).unwrap(), "write p\n+x\n");
        let long = serde_json::json!({"command": "x".repeat(MAX_APPROVAL_TEXT + 1)}).to_string();
        assert_eq!(text("bash", &long), None);
    }
}
