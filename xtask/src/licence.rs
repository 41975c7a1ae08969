//! SPDX licence expressions.

/// Returns true when what `expression` asks can be met with licences of `allowed`.
///
/// # Errors
/// When the expression is not one.
pub(crate) fn is_met(expression: &str, allowed: &[String]) -> Result<bool, String> {
    // Old manifests write `MIT/Apache-2.0` for `MIT OR Apache-2.0`.
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any_of(&mut rest, allowed).ok_or_else(|| format!("{expression:?} is not a licence expression"))?;
    if rest.is_empty() { Ok(met) } else { Err(format!("{expression:?} is not a licence expression")) }
}

fn any_of(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut met = all_of(words, allowed)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        met |= all_of(words, allowed)?;
    }
    Some(met)
}

fn all_of(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let mut met = one(words, allowed)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        met &= one(words, allowed)?;
    }
    Some(met)
}

fn one(words: &mut &[&str], allowed: &[String]) -> Option<bool> {
    let (word, rest) = words.split_first()?;
    *words = rest;
    match *word {
        "(" => {
            let met = any_of(words, allowed)?;
            let (close, rest) = words.split_first()?;
            *words = rest;
            (*close == ")").then_some(met)
        }
        "AND" | "OR" | "WITH" | ")" => None,
        licence => {
            let mut name = licence.to_owned();
            if let ["WITH", exception, rest @ ..] = *words {
                name = format!("{licence} WITH {exception}");
                *words = rest;
            }
            Some(allowed.contains(&name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> Result<bool, String> {
        is_met(expression, &["MIT".into(), "ISC".into(), "Apache-2.0 WITH LLVM-exception".into()])
    }

    #[test]
    fn one_licence_of_a_choice_is_enough_and_all_of_a_sum_are_needed() {
        assert_eq!(met("MIT"), Ok(true));
        assert_eq!(met("GPL-3.0-only OR MIT"), Ok(true));
        assert_eq!(met("GPL-3.0-only/MIT"), Ok(true));
        assert_eq!(met("MIT AND GPL-3.0-only"), Ok(false));
        assert_eq!(met("(GPL-3.0-only OR MIT) AND ISC"), Ok(true));
        assert_eq!(met("GPL-3.0-only OR MIT AND Zlib"), Ok(false), "AND binds closer than OR");
        assert_eq!(met("Apache-2.0 WITH LLVM-exception"), Ok(true));
        assert_eq!(met("Apache-2.0"), Ok(false));
    }

    #[test]
    fn what_is_not_an_expression_is_refused() {
        for wrong in ["", "MIT AND", "(MIT", "MIT ISC", "OR MIT", "MIT)"] {
            assert!(met(wrong).is_err(), "{wrong:?}");
        }
    }
}
