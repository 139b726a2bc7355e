//! Requests as Claude Code sends them: bodies of an exact size, the same in every run.

/// The octets of a request.
pub fn request(port: u16, target: &str, body: Option<&[u8]>, fields: &[String]) -> Vec<u8> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{FIELDS}");
    if let Some(body) = body {
        let length = body.len();
        head += &format!("content-type: application/json\r\ncontent-length: {length}\r\n");
    }
    for field in fields {
        head += field;
        head += "\r\n";
    }
    head += "\r\n";
    let mut octets = head.into_bytes();
    octets.extend_from_slice(body.unwrap_or_default());
    octets
}

/// A body of `POST /v1/messages` with `size` octets (or its least size, if that is more).
pub fn body(size: usize, is_stream: bool) -> Vec<u8> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let tail = tail(size, is_stream, &mut random);
    let mut body = String::from(r#"{"model":"claude-sonnet-4-5-20250929","messages":["#);
    let mut turn = 0;
    while body.len() + tail.len() + LARGEST_TURN < size {
        let role = if turn % 2 == 0 { "user" } else { "assistant" };
        body += &format!(r#"{{"role":"{role}","content":[{{"type":"text","text":""#);
        let length = 500 + random.below(5_500);
        random.text(&mut body, length, true);
        body += r#""}]},"#;
        turn += 1;
    }
    body += r#"{"role":"user","content":[{"type":"text","text":""#;
    const END: &str = r#""}]}"#;
    let end = size.saturating_sub(END.len() + tail.len());
    if body.len() + LONGEST_PIECE < end {
        let length = end - LONGEST_PIECE - body.len();
        random.text(&mut body, length, false);
    }
    while body.len() < end {
        body.push('.');
    }
    body += END;
    body += &tail;
    body.into_bytes()
}

/// All that follows the messages: system prompt, tools, settings.
fn tail(size: usize, is_stream: bool, random: &mut Random) -> String {
    let (system, tools, description) = match size {
        ..8_000 => (200, 1, 120),
        8_000..60_000 => (2_000, 4, 600),
        _ => (12_000, 16, 2_200),
    };
    let mut tail = String::from(concat!(
        r#"],"system":[{"type":"text","text":"You are Claude Code, Anthropic's official CLI for Claude."},"#,
        r#"{"type":"text","text":""#,
    ));
    random.text(&mut tail, system, false);
    tail += r#"","cache_control":{"type":"ephemeral"}}],"tools":["#;
    for tool in 0..tools {
        if tool > 0 {
            tail.push(',');
        }
        tail += &format!(r#"{{"name":"Tool{tool}","description":""#);
        random.text(&mut tail, description, true);
        tail += concat!(
            r#"","input_schema":{"type":"object","properties":{"path":{"type":"string"},"#,
            r#""limit":{"type":"number"}},"required":["path"],"additionalProperties":false}}"#,
        );
    }
    tail += r#"],"metadata":{"user_id":"user_0123456789abcdef0123456789abcdef_account__session_"#;
    tail += r#"01234567-89ab-cdef-0123-456789abcdef"},"max_tokens":32000,"stream":"#;
    tail += if is_stream { "true}" } else { "false}" };
    tail
}

/// xorshift64: the same text in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Appends about `length` octets of escaped text, at most [`LONGEST_PIECE`] more.
    fn text(&mut self, out: &mut String, length: usize, has_code: bool) {
        let end = out.len() + length;
        while out.len() < end {
            if has_code && self.below(3) == 0 {
                out.push_str(CODE[self.below(CODE.len())]);
            } else {
                out.push_str(WORDS[self.below(WORDS.len())]);
                out.push(' ');
            }
        }
    }
}

const FIELDS: &str = "accept: application/json\r\n\
    x-stainless-retry-count: 0\r\n\
    x-stainless-timeout: 600\r\n\
    x-stainless-lang: js\r\n\
    x-stainless-package-version: 0.70.0\r\n\
    x-stainless-os: Linux\r\n\
    x-stainless-arch: x64\r\n\
    x-stainless-runtime: node\r\n\
    x-stainless-runtime-version: v22.11.0\r\n\
    anthropic-dangerous-direct-browser-access: true\r\n\
    anthropic-version: 2023-06-01\r\n\
    authorization: Bearer sk-ant-example-of-a-token-that-is-none-0123456789\r\n\
    x-app: cli\r\n\
    user-agent: claude-cli/2.0.76 (external, cli)\r\n\
    anthropic-beta: claude-code-20250219,oauth-2025-04-20,interleaved-thinking-2025-05-14\r\n\
    accept-language: *\r\n";

/// A turn beyond which another one might not fit.
const LARGEST_TURN: usize = 9_000;
/// More than any entry of the tables below, with its space.
const LONGEST_PIECE: usize = 100;

const WORDS: [&str; 32] = [
    "the", "function", "returns", "value", "error", "handler", "async", "stream", "upstream",
    "proxy", "request", "header", "client", "server", "config", "token", "parse", "buffer",
    "chunk", "delta", "message", "please", "refactor", "this", "module", "so", "that", "tests",
    "naïve", "résumé", "数据", "→",
];
const CODE: [&str; 6] = [
    r#"    let x = foo(\"bar\", 42)?;\n"#,
    r#"\tif err != nil {\n\t\treturn fmt.Errorf(\"failed: %w\", err)\n\t}\n"#,
    r"     12→def main(argv):\n",
    r#"        print(f\"{name}: {value!r}\")\n"#,
    r"// handle the \\n escape\n",
    r#"{\"key\": [1, 2, 3]}\n"#,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_the_size_that_was_asked_for() {
        for size in [2_048, 20_000, 102_400, 1_048_576] {
            let body = body(size, true);
            assert_eq!(body.len(), size);
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            assert_eq!(json["stream"], true, "{size}");
            assert!(json["system"][0]["text"].is_string());
        }
    }
}
