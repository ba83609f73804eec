//! Server-sent events out of bytes, without I/O (WHATWG HTML, section 9.2).
//!
//! It does not reconnect and ignores `id` and `retry`: a model's answer cannot be resumed, only asked for again.

/// Longest line. A vendor may send all arguments of a tool call at once (768 KiB of file content, six bytes for one
/// when escaped); without a bound one line without an end fills memory.
pub(crate) const MAX_LINE: usize = 8 * 1024 * 1024;

/// One event: its name (empty when not given) and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

/// A line or an event exceeded [`MAX_LINE`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LineTooLong;

/// Collects bytes until events are whole.
#[derive(Debug, Default)]
pub(crate) struct SseDecoder {
    line: Vec<u8>,
    name: String,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    begun: bool,
}

impl SseDecoder {
    /// Takes the next bytes and returns the events they complete. Any split of the bytes gives the same events.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, LineTooLong> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (head, tail) = rest.split_at(end);
            let Some((terminator, tail)) = tail.split_first() else { break };
            rest = tail;
            // CR LF is one terminator, also when the two arrive apart.
            if *terminator == b'\n' && self.after_cr && head.is_empty() && self.line.is_empty() {
                self.after_cr = false;
                continue;
            }
            self.after_cr = *terminator == b'\r';
            self.extend_line(head)?;
            if let Some(event) = self.end_line()? {
                events.push(event);
            }
        }
        if !rest.is_empty() {
            self.after_cr = false;
            self.extend_line(rest)?;
        }
        Ok(events)
    }

    fn extend_line(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        if self.line.len() + bytes.len() > MAX_LINE {
            return Err(LineTooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<Option<SseEvent>, LineTooLong> {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(b"\xef\xbb\xbf".as_slice()).unwrap_or(line);
        }
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            let had_data = std::mem::replace(&mut self.has_data, false);
            return Ok(had_data.then_some(SseEvent { name, data }));
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (field, value) = match colon {
            Some(0) => return Ok(None), // a comment: keeps the connection alive
            Some(at) => {
                let (field, value) = line.split_at(at);
                let value = value.strip_prefix(b":").unwrap_or(value);
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, [].as_slice()),
        };
        match field {
            b"event" => self.name = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.data.len() + value.len() > MAX_LINE {
                    return Err(LineTooLong);
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent { name: name.to_owned(), data: data.as_bytes().to_vec() }
    }

    #[test]
    fn events_comments_and_terminators_are_told_apart() {
        let mut decoder = SseDecoder::default();
        let events = decoder
            .push(b"\xef\xbb\xbf: hello\r\nevent: a\r\ndata: 1\r\ndata:2\r\n\r\ndata: x\n\nid: 7\n\nevent: lost\n\ndata\n\n")
            .unwrap();
        assert_eq!(events, [event("a", "1\n2"), event("", "x"), event("", "")]);
    }

    #[test]
    fn unfinished_event_is_not_given() {
        let mut decoder = SseDecoder::default();
        assert!(decoder.push(b"data: {\"half").unwrap().is_empty());
    }

    #[test]
    fn endless_line_is_refused_at_the_bound() {
        let mut decoder = SseDecoder::default();
        let block = vec![b'x'; 1024 * 1024];
        let outcome = (0..9).try_for_each(|_| decoder.push(&block).map(drop));
        assert_eq!(outcome, Err(LineTooLong));
    }

    #[test]
    fn endless_event_of_short_lines_is_refused_at_the_bound() {
        let mut decoder = SseDecoder::default();
        let line = [b"data:".as_slice(), &vec![b'x'; 1024 * 1024], b"\n"].concat();
        let outcome = (0..9).try_for_each(|_| decoder.push(&line).map(drop));
        assert_eq!(outcome, Err(LineTooLong));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            text in "(data: [a-c]{0,3}|event: [a-c]|:|)(\r\n|\n|\r)((data:[a-c]{0,3}|x)(\r\n|\n|\r)){0,6}(\r\n|\n|\r){0,3}",
            at in 0usize..80,
        ) {
            let bytes = text.as_bytes();
            let whole = SseDecoder::default().push(bytes).unwrap();
            let mut decoder = SseDecoder::default();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let mut parts = decoder.push(head).unwrap();
            parts.extend(decoder.push(tail).unwrap());
            prop_assert_eq!(&parts, &whole);
            let mut decoder = SseDecoder::default();
            let single: Vec<_> = bytes.iter().flat_map(|byte| decoder.push(&[*byte]).unwrap()).collect();
            prop_assert_eq!(single, whole);
        }
    }
}
