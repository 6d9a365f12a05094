//! The check language: tokens, the syntax tree and its parser.
//!
//! ```text
//! check   := and-expr ("or" and-expr)*
//! and     := not-expr ("and" not-expr)*
//! not     := "not" not | "(" check ")" | "@" | "!" | left ":" right
//! left    := "role" | "rule" | "field" | 'literal' | True | False | None | 12 | user_id | token.project.domain.id | …
//! right   := text with %(attribute)s in it
//! ```
//!
//! An empty text allows. The older form, a list of lists, is an "or" of "and"s. Operators' names are read in any case,
//! as oslo.policy reads them. Checks that would ask another machine (`http:`, `https:`) are refused: a decision never
//! leaves this process.

/// Longest text of one check, in bytes.
pub const MAX_TEXT: usize = 16 << 10;
/// Deepest nesting of one check.
pub const MAX_DEPTH: usize = 32;

/// One check as a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `@`: allows.
    Allow,
    /// `!`: denies.
    Deny,
    /// Inverts.
    Not(Box<Check>),
    /// All hold.
    And(Vec<Check>),
    /// One holds.
    Or(Vec<Check>),
    /// `rule:name`.
    Rule(String),
    /// `rule:name` after names are bound to their place among the rules.
    Bound(usize),
    /// `role:name`.
    Role(Template),
    /// `field:networks:shared=True` (Neutron): an attribute of the target has a value.
    Field {
        /// Attribute of the target.
        attribute: String,
        /// Its wanted value.
        value: String,
        /// The value is a beginning (`~^network:`), not the whole.
        prefix: bool,
    },
    /// `left:right`: both sides are the same text.
    Compare {
        /// What the caller has, or a literal.
        left: Left,
        /// What is asked for.
        right: Template,
    },
}

/// The left side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// A literal: `'public'`, `True`, `None`, `12`.
    Literal(String),
    /// `user_id`, `token.user.id`.
    UserId,
    /// `user_domain_id`, `token.user.domain.id`.
    UserDomainId,
    /// `project_id`, `tenant_id`, `token.project.id`.
    ProjectId,
    /// `project_domain_id`, `token.project.domain.id`.
    ProjectDomainId,
    /// `domain_id`, `token.domain.id`: the domain that the token is scoped to.
    DomainId,
    /// `system_scope`: `all` for system scope.
    SystemScope,
    /// `is_admin`: `True` for an administrator.
    IsAdmin,
    /// `is_admin_project`: always `True`, as where no admin project is configured.
    IsAdminProject,
    /// Something that our callers never have; compares to nothing.
    Absent(String),
}

/// Text with `%(attribute)s` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub(super) Vec<Part>);

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// The value of an attribute of the target.
    Attribute(String),
}

impl Template {
    /// Whether it asks the target for anything.
    pub(super) fn is_text(&self) -> bool {
        self.0.iter().all(|p| matches!(p, Part::Text(_)))
    }
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("%(") {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            let after = &rest[at + 2..];
            let end = after.find(")s").ok_or_else(|| format!("'{text}': %( without its )s"))?;
            if end == 0 {
                return Err(format!("'{text}': %()s names no attribute"));
            }
            parts.push(Part::Attribute(after[..end].to_owned()));
            rest = &after[end + 2..];
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

/// Parses one check.
///
/// # Errors
/// Says where the text cannot be understood.
pub fn parse_check(text: &str) -> Result<Check, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("the check has {} bytes, at most {MAX_TEXT}", text.len()));
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(Check::Allow);
    }
    let mut parser = Parser { tokens: &tokens, at: 0 };
    let check = parser.or(0)?;
    match parser.peek() {
        None => Ok(check),
        Some(token) => Err(format!(
            "'{}' is not expected here: an 'and' or 'or' is missing before it",
            token.text()
        )),
    }
}

/// Parses the older form: a list whose items (a check or a list of checks that must all hold) are alternatives.
///
/// # Errors
/// Says which item cannot be understood.
pub fn parse_lists(items: &[serde_json::Value]) -> Result<Check, String> {
    if items.is_empty() {
        return Ok(Check::Allow);
    }
    let one = |v: &serde_json::Value| match v.as_str() {
        Some(text) => parse_check(text),
        None => Err(format!("{v} is not a check: write text")),
    };
    let mut alternatives = Vec::new();
    for item in items {
        match item {
            serde_json::Value::Array(all) if all.is_empty() => {}
            serde_json::Value::Array(all) => {
                alternatives.push(joined(all.iter().map(one).collect::<Result<_, _>>()?, Check::And));
            }
            other => alternatives.push(one(other)?),
        }
    }
    Ok(if alternatives.is_empty() {
        Check::Deny
    } else {
        joined(alternatives, Check::Or)
    })
}

fn joined(mut items: Vec<Check>, many: fn(Vec<Check>) -> Check) -> Check {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        Some(last) => {
            items.push(last);
            many(items)
        }
        None => Check::Deny,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Word(String),
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Open => "(",
            Self::Close => ")",
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Word(w) => w,
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    let flush = |word: &mut String, out: &mut Vec<Token>| {
        if !word.is_empty() {
            let lower = word.to_ascii_lowercase();
            out.push(match lower.as_str() {
                "and" => Token::And,
                "or" => Token::Or,
                "not" => Token::Not,
                _ => Token::Word(std::mem::take(word)),
            });
            word.clear();
        }
    };
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_whitespace() => flush(&mut word, &mut out),
            '(' if !word.ends_with('%') => {
                flush(&mut word, &mut out);
                out.push(Token::Open);
            }
            '(' => {
                // %(attribute)s belongs to the word.
                word.push('(');
                loop {
                    match chars.next() {
                        Some(')') => break word.push(')'),
                        Some(c) if !c.is_whitespace() => word.push(c),
                        _ => return Err(format!("'{word}': %( without its )s")),
                    }
                }
            }
            ')' => {
                flush(&mut word, &mut out);
                out.push(Token::Close);
            }
            '\'' | '"' => {
                word.push(c);
                loop {
                    match chars.next() {
                        Some(q) if q == c => break word.push(q),
                        Some(other) => word.push(other),
                        None => return Err(format!("{word}: the quote is not closed")),
                    }
                }
            }
            _ => word.push(c),
        }
    }
    flush(&mut word, &mut out);
    Ok(out)
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }
    fn take(&mut self, token: &Token) -> bool {
        let hit = self.peek() == Some(token);
        self.at += usize::from(hit);
        hit
    }
    fn or(&mut self, depth: usize) -> Result<Check, String> {
        let mut items = vec![self.and(depth)?];
        while self.take(&Token::Or) {
            items.push(self.and(depth)?);
        }
        Ok(joined(items, Check::Or))
    }
    fn and(&mut self, depth: usize) -> Result<Check, String> {
        let mut items = vec![self.not(depth)?];
        while self.take(&Token::And) {
            items.push(self.not(depth)?);
        }
        Ok(joined(items, Check::And))
    }
    fn not(&mut self, depth: usize) -> Result<Check, String> {
        if depth > MAX_DEPTH {
            return Err(format!("the check is nested deeper than {MAX_DEPTH}"));
        }
        if self.take(&Token::Not) {
            return Ok(Check::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.take(&Token::Open) {
            let inner = self.or(depth + 1)?;
            return if self.take(&Token::Close) {
                Ok(inner)
            } else {
                Err("a '(' is not closed".to_owned())
            };
        }
        match self.peek() {
            Some(Token::Word(word)) => {
                let check = atom(word)?;
                self.at += 1;
                Ok(check)
            }
            Some(other) => Err(format!(
                "'{}' is not expected here: a check is missing before it",
                other.text()
            )),
            None => Err("the text ends where a check is expected".to_owned()),
        }
    }
}

fn atom(word: &str) -> Result<Check, String> {
    match word {
        "@" => return Ok(Check::Allow),
        "!" => return Ok(Check::Deny),
        _ => {}
    }
    let (left, right) =
        split(word).ok_or_else(|| format!("'{word}' is not a check: write it as kind:match, @ or !"))?;
    Ok(match left {
        "rule" if right.is_empty() => return Err("'rule:' names no rule".to_owned()),
        "rule" => Check::Rule(right.to_owned()),
        "role" => Check::Role(Template::parse(right)?),
        "field" => field(right)?,
        "http" | "https" => {
            return Err(format!(
                "'{word}': checks by another server are not made; decide with roles"
            ));
        }
        "" => return Err(format!("'{word}' has nothing before its colon")),
        _ => Check::Compare {
            left: side(left),
            right: Template::parse(right)?,
        },
    })
}

/// Splits at the first colon that is not in quotes.
fn split(word: &str) -> Option<(&str, &str)> {
    let quote = word.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let from = match quote {
        Some(q) => word[1..].find(q)? + 2,
        None => 0,
    };
    let at = word[from..].find(':')? + from;
    Some((&word[..at], &word[at + 1..]))
}

fn field(right: &str) -> Result<Check, String> {
    let bad = || format!("'field:{right}' is not of the form field:resource:attribute=value");
    let (name, value) = right.split_once('=').ok_or_else(bad)?;
    let (_, attribute) = name.split_once(':').ok_or_else(bad)?;
    let (value, prefix) = match value.strip_prefix('~') {
        None => (value, false),
        Some(pattern) => match pattern.strip_prefix('^') {
            Some(start) if start.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_/".contains(&b)) => (start, true),
            _ => return Err(format!("'field:{right}': of patterns only ~^beginning is understood")),
        },
    };
    Ok(Check::Field {
        attribute: attribute.to_owned(),
        value: value.to_owned(),
        prefix,
    })
}

fn side(text: &str) -> Left {
    for q in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(q).and_then(|t| t.strip_suffix(q)) {
            return Left::Literal(inner.to_owned());
        }
    }
    match text {
        "True" | "False" | "None" => Left::Literal(text.to_owned()),
        "user_id" | "token.user.id" => Left::UserId,
        "user_domain_id" | "token.user.domain.id" => Left::UserDomainId,
        "project_id" | "tenant_id" | "tenant" | "token.project.id" => Left::ProjectId,
        "project_domain_id" | "token.project.domain.id" => Left::ProjectDomainId,
        "domain_id" | "token.domain.id" => Left::DomainId,
        "system_scope" => Left::SystemScope,
        "is_admin" => Left::IsAdmin,
        "is_admin_project" => Left::IsAdminProject,
        _ if text.parse::<f64>().is_ok() => Left::Literal(text.to_owned()),
        _ => Left::Absent(text.to_owned()),
    }
}
