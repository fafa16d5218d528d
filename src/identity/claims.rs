//! What the claims of a verified Clerk token say of an organization, in version 1 and version 2 (section 1.2).

use serde_json::{Map, Value};

use super::Org;

/// In a token of version 2, claims of version 1 count for nothing even if they are there.
#[must_use]
pub fn organization(claims: &Map<String, Value>) -> Option<Org> {
    if claims.get("v").and_then(Value::as_u64) == Some(2) { version_2(claims) } else { version_1(claims) }
}

fn version_1(claims: &Map<String, Value>) -> Option<Org> {
    let permissions = claims.get("org_permissions").and_then(Value::as_array);
    Some(Org {
        id: text(claims, "org_id")?,
        slug: text(claims, "org_slug"),
        role: text(claims, "org_role"),
        permissions: permissions.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
    })
}

fn version_2(claims: &Map<String, Value>) -> Option<Org> {
    let org = claims.get("o")?.as_object()?;
    Some(Org {
        id: text(org, "id")?,
        slug: text(org, "slg"),
        role: text(org, "rol").map(|role| format!("org:{role}")),
        permissions: Some(permissions(claims, org)),
    })
}

/// `per` names permissions, `fpm` has a mask for each feature of the organization: its lowest bit stands for the first of the names.
fn permissions(claims: &Map<String, Value>, org: &Map<String, Value>) -> Vec<String> {
    let list = |text: Option<&Value>| -> Vec<String> {
        let parts = text.and_then(Value::as_str).unwrap_or_default().split(',').map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let features = list(claims.get("fea"));
    let of_org = features.iter().filter_map(|feature| {
        let (scope, name) = feature.split_once(':')?;
        scope.contains('o').then_some(name)
    });
    let (names, masks) = (list(org.get("per")), list(org.get("fpm")));
    let mut found = Vec::new();
    for (feature, mask) in of_org.zip(&masks) {
        let bits = bits(mask);
        let held = names.iter().zip(bits).filter(|(_, bit)| *bit).map(|(name, _)| format!("org:{feature}:{name}"));
        found.extend(held);
    }
    found
}

/// The bits of a decimal number of any length, lowest first; none of what is no number.
fn bits(decimal: &str) -> Vec<bool> {
    let mut digits: Vec<u8> = decimal.bytes().map(|digit| digit.wrapping_sub(b'0')).collect();
    if digits.iter().any(|digit| *digit > 9) {
        return Vec::new();
    }
    let mut bits = Vec::new();
    while digits.iter().any(|digit| *digit != 0) {
        let mut rest = 0;
        for digit in &mut digits {
            let value = rest * 10 + *digit;
            (*digit, rest) = (value / 2, value % 2);
        }
        bits.push(rest == 1);
    }
    bits
}

fn text(claims: &Map<String, Value>, name: &str) -> Option<String> {
    claims.get(name)?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_may_have_more_bits_than_any_machine_word() {
        assert_eq!(bits("5"), [true, false, true]);
        assert_eq!(bits("0"), [false; 0]);
        assert_eq!(bits("z"), [false; 0]);
        let huge = bits("36893488147419103233"); // 2^65 + 1
        assert_eq!((huge.len(), huge[0], huge[65]), (66, true, true));
    }
}
