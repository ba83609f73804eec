//! Methods other than `getUpdates`: what they demand, what they do, what they answer.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{BOT, BOT_NAME, Call, Shared, markup};

/// Telegram's bound of a message, in UTF-16 units after entities were parsed.
const MOST: usize = 4096;

/// The published schema of the methods' arguments.
pub(super) struct Schema(Value);

impl Schema {
    /// From `OXIBOT_API_CONTRACTS`, or the directory beside the checkout.
    pub(super) fn published() -> Option<Self> {
        let directory = std::env::var_os("OXIBOT_API_CONTRACTS").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/api_contracts"),
            PathBuf::from,
        );
        let text = std::fs::read(directory.join("telegram_bot_api_methods.schema.json")).ok()?;
        Some(Self(serde_json::from_slice(&text).expect("the schema is JSON")))
    }

    /// What the schema says against arguments, if anything.
    fn judge(&self, method: &str, body: &Value) -> Option<String> {
        let name = format!("{method}_args");
        let definitions = &self.0["definitions"];
        if definitions.get(&name).is_none() {
            return Some(format!("there is no method {method}"));
        }
        let schema = json!({"$schema": self.0["$schema"], "definitions": definitions,
            "$ref": format!("#/definitions/{name}")});
        let judge = jsonschema::validator_for(&schema).expect("the schema compiles");
        judge.iter_errors(body).next().map(|error| format!("{error} at {}", error.instance_path()))
    }
}

/// The chat of a call; ids may be numbers or text.
pub(super) fn chat_of(body: &Value) -> Option<i64> {
    body["chat_id"].as_i64().or_else(|| body["chat_id"].as_str()?.parse().ok())
}

/// Buttons below a message: what is written on them, and what pressing them says.
pub(super) fn buttons(body: &Value) -> Vec<(String, String)> {
    let rows = body["reply_markup"]["inline_keyboard"].as_array().cloned().unwrap_or_default();
    let all = rows.iter().filter_map(Value::as_array).flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    all.map(|button| (text(&button["text"]), text(&button["callback_data"]))).collect()
}

/// What pressing a button says.
pub(super) fn button(body: &Value, named: &str) -> Option<String> {
    buttons(body).into_iter().find(|(text, _)| text == named).map(|(_, data)| data)
}

/// Does what a method says.
pub(super) fn carry_out(shared: &Shared, name: &str, body: &Value) -> Result<Value, (u16, String)> {
    let bad = |text: &str| (400, format!("Bad Request: {text}"));
    let documented = ["getMe", "sendMessage", "editMessageText", "sendChatAction", "answerCallbackQuery"];
    let Some(method) = documented.into_iter().find(|method| method.to_lowercase() == name) else {
        return Err((404, "Not Found".to_owned()));
    };
    if let Some(schema) = shared.schema.as_ref().filter(|_| method != "getMe")
        && let Some(problem) = schema.judge(method, body)
    {
        return Err(bad(&format!("not by the schema: {problem}")));
    }
    let mut text = String::new();
    if matches!(method, "sendMessage" | "editMessageText") {
        let raw = body["text"].as_str().unwrap_or_default();
        text = match body["parse_mode"].as_str() {
            None => raw.to_owned(),
            Some("HTML") => markup::plain(raw).map_err(|text| (400, text))?,
            Some(_) => return Err(bad("unsupported parse_mode")),
        };
        if text.trim().is_empty() {
            return Err(bad("message text is empty"));
        }
        if text.encode_utf16().count() > MOST {
            return Err(bad("message is too long"));
        }
        for (text, data) in buttons(body) {
            if text.is_empty() || !(1..=64).contains(&data.len()) {
                return Err(bad("BUTTON_DATA_INVALID"));
            }
        }
        if body["link_preview_options"]["is_disabled"] != json!(true) {
            shared.book().problems.push(format!("{method} lets Telegram look at addresses: {body}"));
        }
    }
    let chat = chat_of(body);
    if !matches!(method, "getMe" | "answerCallbackQuery") && chat.is_none_or(|chat| chat == 0) {
        return Err(bad("chat not found"));
    }
    let me = json!({"id": BOT, "is_bot": true, "first_name": "Oxi", "username": BOT_NAME});
    let mut book = shared.book();
    let result = match method {
        "getMe" => {
            let mut me = me;
            for flag in [
                "can_join_groups",
                "can_read_all_group_messages",
                "supports_inline_queries",
                "can_connect_to_business",
                "has_main_web_app",
            ] {
                me[flag] = json!(false);
            }
            me
        }
        "sendChatAction" => json!(true),
        "answerCallbackQuery" => {
            let id = body["callback_query_id"].as_str().unwrap_or_default().to_owned();
            if !book.pressed.remove(&id) {
                return Err(bad("query is too old and response timeout expired or query ID is invalid"));
            }
            json!(true)
        }
        "editMessageText" => {
            let id = body["message_id"].as_i64().ok_or_else(|| bad("message identifier is not specified"))?;
            let known =
                book.calls.iter().any(|call| call.method == "sendMessage" && call.body["_id"] == json!(id));
            if !known {
                return Err(bad("message to edit not found"));
            }
            message(id, chat, &text, &me)
        }
        _ => {
            let id = book.next_message;
            book.next_message += 1;
            message(id, chat, &text, &me)
        }
    };
    let mut kept = body.clone();
    kept["_id"] = result["message_id"].clone();
    book.calls.push(Call { method: method.to_owned(), body: kept, text });
    Ok(result)
}

fn message(id: i64, chat: Option<i64>, text: &str, me: &Value) -> Value {
    let kind = if chat.is_some_and(|chat| chat < 0) { "supergroup" } else { "private" };
    json!({"message_id": id, "date": 1_700_000_000, "text": text, "from": me,
        "chat": {"id": chat, "type": kind, "first_name": "P", "title": "a group"}})
}
