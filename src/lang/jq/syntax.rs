//! Reads the text of a filter: parses it with jaq's parser, puts the guard into what repeats, and says in plain words what
//! is wrong and where.

use super::natives::{FEW, FITS, GUARD, HANDED_ON, JOINED, MAKE, TIMES, WHOLE};
use crate::{
    lang::LangError,
    limits::{DEPTH_MAX, JQ_PARTS_MAX, JQ_STEPS_MAX, JQ_TREE_DEPTH_MAX},
};
use jaq_core::load::{
    lex::{self, Lexer, StrPart, Tok, Token},
    parse::{self, BinaryOp, Def, Parser, Pattern, Term},
    span,
};
use jaq_core::{
    ops::Math,
    path::{Opt, Part, Path},
};

/// Objects and texts with more parts than this are split.
const WIDE: usize = 32;

/// The term of a text, guarded.
///
/// # Errors
/// Everything that the lexer, or else the parser, finds wrong.
pub fn read(text: &str) -> Result<Term<&str>, Vec<LangError>> {
    too_nested(text)?;
    let tokens = match Lexer::new(text).lex() {
        Ok(tokens) => tokens,
        Err(errors) => return Err(errors.iter().map(|e| lex_error(text, e)).collect()),
    };
    refuse_modules(text, &tokens)?;
    too_long(text, &tokens)?;
    if tokens.is_empty() {
        return Err(vec![LangError {
            message: "the filter is empty".into(),
            help: Some("write `.` to hand the value on as it is, or `empty` to give nothing".into()),
            range: None,
        }]);
    }
    let mut term = Parser::new(&tokens).parse(|p| p.term()).map_err(|errors| {
        let found = |found| Token::opt_as_str(found, text);
        errors.into_iter().map(|(expected, token)| parse_error(text, &expected, found(token))).collect::<Vec<_>>()
    })?;
    balance(&mut term);
    let bounded = depth(&mut term).and_then(|_| {
        bound_recursion(&mut term);
        depth(&mut term)
    });
    if let Err(message) = bounded {
        let help = Some("give parts of it names with `def`, or read long lists from `params` or a file".into());
        return Err(vec![LangError { message: message.into(), help, range: None }]);
    }
    make_targets(&mut term);
    guard_term(&mut term);
    Ok(term)
}

/// Lets assignments make what is missing, as in jq: `.a.b = 1` of `{}` is `{"a": {"b": 1}}`.
fn make_targets(term: &mut Term<&str>) {
    if let Term::BinOp(target, op, _) = term
        && matches!(op, BinaryOp::Assign | BinaryOp::Update | BinaryOp::UpdateMath(_) | BinaryOp::UpdateAlt)
    {
        make_target(target);
    }
    if let Term::Def(defs, _) = term {
        defs.iter_mut().for_each(|def| make_targets(&mut def.body));
    }
    each_child(term, &mut make_targets);
}

/// Cuts a path that is assigned to into its steps, with [`MAKE`] before each step by a key.
fn make_target(target: &mut Term<&str>) {
    match target {
        Term::BinOp(left, BinaryOp::Pipe(None) | BinaryOp::Comma, right) => {
            make_target(left);
            make_target(right);
        }
        Term::BinOp(_, BinaryOp::Pipe(Some(_)), right) => make_target(right),
        Term::IfThenElse(branches, otherwise) => {
            branches.iter_mut().for_each(|(_, then)| make_target(then));
            otherwise.iter_mut().for_each(|otherwise| make_target(otherwise));
        }
        Term::Path(inner, path) => {
            make_target(inner);
            // A key that looks at `.` means the input of the whole path: such a path stays whole.
            let closed = |(at, (part, _)): (usize, &(Part<Term<&str>>, _))| match part {
                Part::Index(key) => at == 0 && matches!(**inner, Term::Id) || is_closed(key),
                Part::Range(from, to) => from.iter().chain(to).all(is_closed),
            };
            if !path.0.iter().enumerate().all(closed) {
                return;
            }
            let mut steps = vec![std::mem::take(&mut **inner)];
            for (part, opt) in std::mem::take(&mut path.0) {
                if let (Part::Index(key), Opt::Essential) = (&part, &opt) {
                    steps.push(Term::Call(MAKE, vec![key.clone()]));
                }
                steps.push(Term::Path(Box::new(Term::Id), Path(vec![(part, opt)])));
            }
            let mut right = steps.pop().unwrap_or_default();
            while let Some(left) = steps.pop() {
                right = Term::BinOp(Box::new(left), BinaryOp::Pipe(None), Box::new(right));
            }
            *target = right;
        }
        _ => {}
    }
}

/// True when a term gives the same whatever its input is.
fn is_closed(term: &Term<&str>) -> bool {
    match term {
        Term::Num(_) | Term::Var(_) => true,
        Term::Neg(inner) => is_closed(inner),
        Term::Str(None, parts) => parts.iter().all(|part| match part {
            StrPart::Term(inner) => is_closed(inner),
            _ => true,
        }),
        Term::Path(inner, path) => {
            is_closed(inner)
                && path.0.iter().all(|(part, _)| match part {
                    Part::Index(key) => is_closed(key),
                    Part::Range(from, to) => from.iter().chain(to).all(is_closed),
                })
        }
        Term::BinOp(left, BinaryOp::Math(_), right) => is_closed(left) && is_closed(right),
        _ => false,
    }
}

/// Puts the guard before the body of a definition that calls itself, and into the loops inside.
pub fn guard_def(def: &mut Def<&str>) {
    guard_term(&mut def.body);
    if calls(&def.body, def.name) {
        guard(&mut def.body);
    }
}

/// How deep the recursion is, as a variable that no author can write.
const DEEP: &str = "$!deep";

/// Bounds definitions that call themselves and are given filters. A call of `f(g)` inside `f(g)` hands on a `g` that calls
/// the `g` before it: a row as long as the recursion, also where the calls themselves come back, and using or dropping it
/// recurses. So `def f(g): ..;` becomes `def f(g): def f($!deep; g): ..; f($!deep; g);`, in which every call of `f` adds one
/// to `$!deep` and [`HANDED_ON`] looks at it.
fn bound_recursion(term: &mut Term<&str>) {
    let mut found = false;
    bound_defs(term, &mut found);
    if found {
        let program = Box::new(std::mem::take(term));
        *term = Term::BinOp(Box::new(Term::Num("0")), BinaryOp::Pipe(Some(Pattern::Var(DEEP))), program);
    }
}

fn bound_defs(term: &mut Term<&str>, found: &mut bool) {
    if let Term::Def(defs, _) = term {
        for def in defs {
            bound_defs(&mut def.body, found);
            if def.args.iter().any(|arg| !arg.starts_with('$')) && calls(&def.body, def.name) {
                *found = true;
                bound_def(def);
            }
        }
    }
    each_child(term, &mut |child| bound_defs(child, found));
}

fn bound_def(def: &mut Def<&str>) {
    let mut body = std::mem::take(&mut def.body);
    // Another definition of the name, with more arguments, must stay what it is.
    let mut more = 1;
    while calls_with(&body, def.name, def.args.len() + more) {
        more += 1;
    }
    let deeper = Term::BinOp(Box::new(Term::Var(DEEP)), BinaryOp::Math(Math::Add), Box::new(Term::Num("1")));
    call_deeper(&mut body, (def.name, def.args.len()), &vec![deeper; more]);
    let look = Box::new(Term::Call(HANDED_ON, vec![Term::Var(DEEP)]));
    let body = Term::BinOp(look, BinaryOp::Pipe(None), Box::new(body));
    let args = std::iter::repeat_n(DEEP, more).chain(def.args.iter().copied()).collect();
    let given = def
        .args
        .iter()
        .copied()
        .map(|arg| if arg.starts_with('$') { Term::Var(arg) } else { Term::Call(arg, Vec::new()) });
    let first = std::iter::repeat_n(Term::Var(DEEP), more).chain(given).collect();
    let inner = Def { name: def.name, args, body };
    def.body = Term::Def(vec![inner], Box::new(Term::Call(def.name, first)));
}

/// Puts arguments before those of every call of a definition, where no other definition stands in its place.
fn call_deeper<'s>(term: &mut Term<&'s str>, (name, arity): (&str, usize), before: &[Term<&'s str>]) {
    if let Term::Def(defs, rest) = term {
        for def in defs {
            if (def.name, def.args.len()) == (name, arity) {
                return;
            }
            call_deeper(&mut def.body, (name, arity), before);
        }
        return call_deeper(rest, (name, arity), before);
    }
    each_child(term, &mut |child| call_deeper(child, (name, arity), before));
    if let Term::Call(called, args) = term
        && (*called, args.len()) == (name, arity)
    {
        args.splice(0..0, before.iter().cloned());
    }
}

/// True when a term calls something of this name with so many arguments.
fn calls_with(term: &Term<&str>, name: &str, arity: usize) -> bool {
    let mut found = false;
    fn look(term: &mut Term<&str>, name: &str, arity: usize, found: &mut bool) {
        *found |= matches!(term, Term::Call(called, args) if *called == name && args.len() == arity);
        if let Term::Def(defs, _) = term {
            defs.iter_mut().for_each(|def| look(&mut def.body, name, arity, found));
        }
        each_child(term, &mut |child| look(child, name, arity, found));
    }
    look(&mut term.clone(), name, arity, &mut found);
    found
}

fn guard(term: &mut Term<&str>) {
    let body = std::mem::take(term);
    *term = Term::BinOp(Box::new(Term::Call(GUARD, Vec::new())), BinaryOp::Pipe(None), Box::new(body));
}

fn guard_term(term: &mut Term<&str>) {
    if let Term::Fold(_, _, _, args) = term
        && let Some(update) = args.get_mut(1)
    {
        guard(update);
        let body = std::mem::take(update);
        *update = Term::Call(WHOLE, vec![body]);
    }
    if let Term::Def(defs, _) = term {
        for def in defs.iter_mut() {
            guard_def(def);
        }
    }
    each_child(term, &mut |child| guard_term(child));
    bound_results(term);
    match term {
        Term::Arr(Some(inner)) => {
            let values = std::mem::take(&mut **inner);
            **inner = Term::Call(FEW, vec![values]);
        }
        Term::Call("tojson", args) if args.is_empty() => {
            let fits = Box::new(Term::Call(FITS, Vec::new()));
            *term = Term::BinOp(fits, BinaryOp::Pipe(None), Box::new(std::mem::take(term)));
        }
        Term::Str(_, parts) => {
            for part in parts {
                if let StrPart::Term(inner) = part {
                    let value = std::mem::take(inner);
                    let fits = Box::new(Term::Call(FITS, Vec::new()));
                    *inner = Term::BinOp(Box::new(value), BinaryOp::Pipe(None), fits);
                }
            }
        }
        _ => {}
    }
}

/// Lets a product pass through [`TIMES`] where it could be a text many times over, and a sum through [`JOINED`] where it could
/// join what is large: `"-" * .n` with a number from data, or `. + .` in a loop, must not take all memory at once.
fn bound_results(term: &mut Term<&str>) {
    // Bound by its left side: `p *= f` is `f as $x | p |= . * $x`, and so for sums.
    const RIGHT: &str = "$!right";
    let Term::BinOp(left, op, right) = term else { return };
    let update = match op {
        // A number joins nothing.
        BinaryOp::Math(Math::Add) | BinaryOp::UpdateMath(Math::Add)
            if matches!(**left, Term::Num(_)) || matches!(**right, Term::Num(_)) =>
        {
            return;
        }
        BinaryOp::Math(Math::Mul) | BinaryOp::UpdateMath(Math::Mul)
            if is_never_text(left) && is_never_text(right) || is_small(left) || is_small(right) =>
        {
            return;
        }
        BinaryOp::Math(Math::Add | Math::Mul) => false,
        BinaryOp::UpdateMath(Math::Add | Math::Mul) => true,
        _ => return,
    };
    let is_sum = matches!(op, BinaryOp::Math(Math::Add) | BinaryOp::UpdateMath(Math::Add));
    let (left, right) = (std::mem::take(&mut **left), std::mem::take(&mut **right));
    let result = |left, right| match is_sum {
        true => {
            let sum = Term::BinOp(Box::new(left), BinaryOp::Math(Math::Add), Box::new(right));
            Term::BinOp(Box::new(sum), BinaryOp::Pipe(None), Box::new(Term::Call(JOINED, Vec::new())))
        }
        false => Term::Call(TIMES, vec![left, right]),
    };
    *term = match update {
        false => result(left, right),
        true => {
            let value = Box::new(result(Term::Id, Term::Var(RIGHT)));
            let update = Box::new(Term::BinOp(Box::new(left), BinaryOp::Update, value));
            Term::BinOp(Box::new(right), BinaryOp::Pipe(Some(Pattern::Var(RIGHT))), update)
        }
    };
}

/// True for a term that gives no text, whatever its input is.
fn is_never_text(term: &Term<&str>) -> bool {
    matches!(
        term,
        Term::Num(_)
            | Term::Neg(_)
            | Term::Arr(_)
            | Term::Obj(_)
            | Term::BinOp(_, BinaryOp::Math(Math::Sub | Math::Div | Math::Rem), _)
    )
}

/// True for a written number that makes no text large at once.
fn is_small(term: &Term<&str>) -> bool {
    matches!(term, Term::Num(digits) if digits.parse::<f64>().is_ok_and(|factor| factor <= 100.0))
}

/// True when a term calls something of this name, with whatever arguments.
fn calls(term: &Term<&str>, name: &str) -> bool {
    let mut term = term.clone();
    fn look(term: &mut Term<&str>, name: &str, found: &mut bool) {
        if let Term::Call(called, _) = term {
            *found |= *called == name;
        }
        if let Term::Str(Some(called), _) = term {
            *found |= *called == name;
        }
        if let Term::Def(defs, _) = term {
            for def in defs {
                look(&mut def.body, name, found);
            }
        }
        each_child(term, &mut |child| look(child, name, found));
    }
    let mut found = false;
    look(&mut term, name, &mut found);
    found
}

/// Visits the terms directly inside a term, but not the bodies of definitions.
fn each_child<'s>(term: &mut Term<&'s str>, visit: &mut dyn FnMut(&mut Term<&'s str>)) {
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) | Term::Arr(None) => {}
        Term::Str(_, parts) => {
            for part in parts {
                if let StrPart::Term(inner) = part {
                    visit(inner);
                }
            }
        }
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) | Term::Def(_, inner) => visit(inner),
        Term::Obj(fields) => {
            for (name, value) in fields {
                visit(name);
                value.iter_mut().for_each(&mut *visit);
            }
        }
        Term::BinOp(left, op, right) => {
            visit(left);
            if let BinaryOp::Pipe(Some(pattern)) = op {
                each_in_pattern(pattern, visit);
            }
            visit(right);
        }
        Term::Fold(_, source, pattern, args) => {
            visit(source);
            each_in_pattern(pattern, visit);
            args.iter_mut().for_each(visit);
        }
        Term::TryCatch(inner, catch) => {
            visit(inner);
            if let Some(catch) = catch {
                visit(catch);
            }
        }
        Term::IfThenElse(branches, otherwise) => {
            for (condition, then) in branches {
                visit(condition);
                visit(then);
            }
            if let Some(otherwise) = otherwise {
                visit(otherwise);
            }
        }
        Term::Call(_, args) => args.iter_mut().for_each(visit),
        Term::Path(inner, path) => {
            visit(inner);
            for (part, _) in &mut path.0 {
                match part {
                    Part::Index(index) => visit(index),
                    Part::Range(from, to) => from.iter_mut().chain(to).for_each(&mut *visit),
                }
            }
        }
    }
}

fn each_in_pattern<'s>(pattern: &mut Pattern<&'s str>, visit: &mut dyn FnMut(&mut Term<&'s str>)) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(patterns) => patterns.iter_mut().for_each(|p| each_in_pattern(p, visit)),
        Pattern::Obj(fields) => {
            for (name, p) in fields {
                visit(name);
                each_in_pattern(p, visit);
            }
        }
    }
}

/// jaq's lexer and parser recurse once for each bracket: refuses a text before they see too many.
fn too_nested(text: &str) -> Result<(), Vec<LangError>> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(vec![LangError {
                message: format!("brackets are nested deeper than {DEPTH_MAX} levels"),
                help: Some("give the inner parts names with `def`".into()),
                range: Some(at..at + 1),
            }]);
        }
    }
    Ok(())
}

/// Operators in a row nest, too, one level of the parser for each: refuses a text with too many of them.
fn too_long(text: &str, tokens: &[Token<&str>]) -> Result<(), Vec<LangError>> {
    fn inside<'s>(token: &Tok<&'s str>, depth: usize) -> Option<&'s str> {
        match token {
            Tok::Block(inner) => count(inner, depth + 4),
            Tok::Str(parts) => parts.iter().find_map(|part| match part {
                StrPart::Term(Token(_, inner)) => inside(inner, depth + 4),
                _ => None,
            }),
            _ => None,
        }
    }
    // The first token beyond the limit.
    fn count<'s>(tokens: &[Token<&'s str>], outer: usize) -> Option<&'s str> {
        let mut depth = outer;
        // Depths before the definitions that are open: `;` ends the innermost, or else an argument.
        let mut definitions = Vec::new();
        for Token(text, token) in tokens {
            if let Some(at) = inside(token, depth) {
                return Some(at);
            }
            match (token, *text) {
                (Tok::Sym, ";") => depth = definitions.pop().unwrap_or(outer),
                (Tok::Sym, "|" | ",") => depth += 1,
                (Tok::Sym, ":" | "?" | ")" | "]" | "}") => {}
                (Tok::Sym, path) if path.starts_with('.') => {}
                (Tok::Word, "def") => {
                    definitions.push(depth);
                    depth += 4;
                }
                (Tok::Sym, _) | (Tok::Word, "as" | "and" | "or" | "if" | "try" | "reduce" | "foreach" | "label") => {
                    depth += 4;
                }
                _ => {}
            }
            if depth > JQ_STEPS_MAX {
                return Some(text);
            }
        }
        None
    }
    match count(tokens, 0) {
        None => Ok(()),
        Some(at) => Err(vec![LangError {
            message: "the filter has too many steps in a row".into(),
            help: Some("give parts of it names with `def`, or read long lists from `params` or a file".into()),
            range: Some(span(text, at)),
        }]),
    }
}

/// Makes rows of `|` and of `,`, the fields of objects and the parts of texts balanced trees: all are associative, and a
/// row of 400 must not take 400 levels.
fn balance(term: &mut Term<&str>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Row {
        Pipe,
        Comma,
    }
    fn row(term: &Term<&str>) -> Option<Row> {
        match term {
            Term::BinOp(_, BinaryOp::Pipe(None), _) => Some(Row::Pipe),
            Term::BinOp(_, BinaryOp::Comma, _) => Some(Row::Comma),
            _ => None,
        }
    }
    fn build(mut parts: Vec<Term<&str>>, kind: Row) -> Term<&str> {
        if parts.len() <= 1 {
            return parts.pop().unwrap_or_default();
        }
        let right = parts.split_off(parts.len() / 2);
        let op = if kind == Row::Pipe { BinaryOp::Pipe(None) } else { BinaryOp::Comma };
        Term::BinOp(Box::new(build(parts, kind)), op, Box::new(build(right, kind)))
    }
    if let Some(kind) = row(term) {
        // Without recursion: the row may be long.
        let mut parts = Vec::new();
        let mut open = vec![std::mem::take(term)];
        while let Some(next) = open.pop() {
            match (row(&next) == Some(kind), next) {
                (true, Term::BinOp(left, _, right)) => open.extend([*right, *left]),
                (_, part) => parts.push(part),
            }
        }
        for part in &mut parts {
            balance(part);
        }
        *term = build(parts, kind);
        return;
    }
    match term {
        Term::Obj(fields) if fields.len() > WIDE => {
            let right = fields.split_off(fields.len() / 2);
            let left = std::mem::take(fields);
            *term = sum(Term::Obj(left), Term::Obj(right));
        }
        Term::Str(format, parts) if parts.len() > WIDE => {
            let right = parts.split_off(parts.len() / 2);
            let (left, format) = (std::mem::take(parts), *format);
            *term = sum(Term::Str(format, left), Term::Str(format, right));
        }
        _ => {}
    }
    if let Term::Def(defs, _) = term {
        defs.iter_mut().for_each(|def| balance(&mut def.body));
    }
    each_child(term, &mut |child| balance(child));
}

fn sum<'s>(left: Term<&'s str>, right: Term<&'s str>) -> Term<&'s str> {
    Term::BinOp(Box::new(left), BinaryOp::Math(Math::Add), Box::new(right))
}

/// Levels that a term takes when it is compiled and run. Refuses what has too many or too wide parts.
fn depth(term: &mut Term<&str>) -> Result<usize, &'static str> {
    let width = match term {
        Term::IfThenElse(branches, _) => branches.len(),
        Term::Path(_, path) => path.0.len(),
        _ => 0,
    };
    if width > JQ_PARTS_MAX {
        return Err("one `if` or one path of the filter has too many branches or steps");
    }
    let mut deepest = Ok(0);
    let mut look = |child: &mut Term<&str>| {
        if let Ok(so_far) = deepest {
            deepest = depth(child).map(|levels| levels.max(so_far));
        }
    };
    if let Term::Def(defs, _) = term {
        defs.iter_mut().for_each(|def| look(&mut def.body));
    }
    each_child(term, &mut look);
    match deepest? + 1 {
        levels if levels > JQ_TREE_DEPTH_MAX => Err("the filter is nested too deeply"),
        levels => Ok(levels),
    }
}

fn refuse_modules(text: &str, tokens: &[Token<&str>]) -> Result<(), Vec<LangError>> {
    match tokens.first() {
        Some(Token(word @ ("include" | "import" | "module"), Tok::Word)) => Err(vec![LangError {
            message: format!("`{word}` is not available: a filter is one text"),
            help: Some("put the definitions at the beginning of the same file".into()),
            range: Some(span(text, word)),
        }]),
        _ => Ok(()),
    }
}

fn lex_error(text: &str, (expected, found): &lex::Error<&str>) -> LangError {
    let mut range = first_char(text, found);
    let found = found.chars().next();
    let (message, help) = match (expected, found) {
        (lex::Expect::Delim(open), _) => {
            range = span(text, open);
            let close = match *open {
                "(" => ")",
                "[" => "]",
                "{" => "}",
                other => other,
            };
            (format!("this `{open}` is never closed"), Some(format!("write `{close}` where it ends")))
        }
        (lex::Expect::Digit, _) => ("a digit is missing here".to_owned(), None),
        (lex::Expect::Ident, _) => ("a name is missing here".to_owned(), None),
        (lex::Expect::Escape, _) => {
            ("this is no escape that jq knows".to_owned(), Some(r"write `\\` for a backslash".to_owned()))
        }
        (lex::Expect::Unicode, _) => (r"`\u` needs four hexadecimal digits".to_owned(), None),
        (_, Some('\'')) => ("jq texts stand in double quotes".to_owned(), Some("write \"…\"".to_owned())),
        (_, Some(c @ (')' | ']' | '}'))) => (format!("this `{c}` closes nothing"), None),
        (_, Some('&')) => ("`&` is no operator of jq".to_owned(), Some("write `and`".to_owned())),
        (_, Some(c)) => (format!("`{c}` cannot stand here"), None),
        (_, None) => ("the filter ends too early".to_owned(), None),
    };
    LangError { message, help, range: Some(range) }
}

fn parse_error(text: &str, expected: &parse::Expect<&str>, found: &str) -> LangError {
    let range = if found.starts_with(['(', '[', '{']) { first_char(text, found) } else { span(text, found) };
    let what = match expected {
        parse::Expect::Just(word) => format!("`{word}`"),
        parse::Expect::Var => "a variable such as `$x`".into(),
        parse::Expect::Pattern => "a variable such as `$x`, or a pattern".into(),
        parse::Expect::ElseOrEnd => "`else` or `end`".into(),
        parse::Expect::CommaOrRBrack => "`,` or `]`".into(),
        parse::Expect::CommaOrRBrace => "`,` or `}`".into(),
        parse::Expect::SemicolonOrRParen => "`;` or `)`".into(),
        parse::Expect::Term => "a value or a filter".into(),
        parse::Expect::Key => "the name of a field".into(),
        parse::Expect::Ident => "a name".into(),
        parse::Expect::Arg => "the name of an argument".into(),
        parse::Expect::Str => "a text in quotes".into(),
        _ => "an operator such as `|`, or the end".into(),
    };
    let help = match (expected, found) {
        (parse::Expect::Term, "=" | "==") => None,
        (parse::Expect::Nothing, "||") => Some("write `or`".to_owned()),
        (parse::Expect::Nothing, "&&") => Some("write `and`".to_owned()),
        (parse::Expect::Nothing, "!") => Some("write `| not`".to_owned()),
        _ => None,
    };
    let message = if found.is_empty() {
        format!("the filter ends where {what} is missing")
    } else {
        let shown: String = found.chars().take(if found.starts_with(['(', '[', '{']) { 1 } else { 40 }).collect();
        format!("expected {what}, found `{shown}`")
    };
    LangError { message, help, range: Some(range) }
}

/// The first character of a part of the text.
fn first_char(text: &str, part: &str) -> std::ops::Range<usize> {
    let start = span(text, part).start;
    start..start + part.chars().next().map_or(0, char::len_utf8)
}
