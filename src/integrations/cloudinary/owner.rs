//! Whose file it is: each user has the folder `users/<id>`, and the context `user_id` that is signed with an upload (sections 2.2 and 2.3).

use std::borrow::Cow;

use data_encoding::BASE64URL_NOPAD;

use crate::notifications::wish::is_id;

/// Where the users' folders are.
const USERS: &str = "users";
/// What an id begins with that is not written as it is: no other folder does.
const ENCODED: &str = "~";

/// The user's folder. What Cloudinary or a path would take for something else is encoded, so that no id names another one's folder.
#[must_use]
pub fn folder(user: &str) -> String {
    format!("{USERS}/{}", segment(user))
}

/// What is signed along with the user's uploads.
#[must_use]
pub fn context(user: &str) -> String {
    let escaped = user.replace('\\', "\\\\").replace('|', "\\|").replace('=', "\\=");
    format!("user_id={escaped}")
}

/// Whether somebody may have this context signed: it may say what it likes, but no other user's id.
#[must_use]
pub fn is_context_of(context: &str, user: &str) -> bool {
    // Escapes are taken away before anything is compared, and `\|` ends a pair here: so nothing hides behind one.
    let plain = context.replace('\\', "");
    plain.split('|').all(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        !name.trim().eq_ignore_ascii_case("user_id") || value == user && !user.contains(['\\', '|'])
    })
}

/// Whether the path is the user's folder, or below it.
#[must_use]
pub fn is_folder_of(path: &str, user: &str) -> bool {
    is_plain(path) && (path == folder(user) || is_below(path, user))
}

/// Whether the path is below the user's folder.
#[must_use]
pub fn is_below(path: &str, user: &str) -> bool {
    let below = path.strip_prefix(&folder(user)).and_then(|rest| rest.strip_prefix('/'));
    is_plain(path) && below.is_some_and(|rest| !rest.is_empty())
}

/// Whether a path leads nowhere but down: no segment of it is empty, `.` or `..`.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    !path.contains('\\') && path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

/// Whose a file is, by the context that was signed with it and by its path. If both say something they must agree.
#[must_use]
pub fn of(context: Option<&str>, public_id: &str) -> Option<String> {
    let context = context.filter(|user| is_id(user));
    match (context, of_path(public_id)) {
        (Some(context), Some(path)) if context != path => None,
        (Some(user), _) => Some(user.to_owned()),
        (None, path) => path,
    }
}

fn of_path(public_id: &str) -> Option<String> {
    let mut segments = public_id.split('/');
    let (users, user) = (segments.next()?, segments.next()?);
    let is_file = is_plain(public_id) && users == USERS && segments.next().is_some();
    is_file.then(|| user_of(user)).flatten()
}

fn segment(user: &str) -> Cow<'_, str> {
    let plain = user.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@|:".contains(&byte));
    if plain && !matches!(user, "." | "..") {
        return user.into();
    }
    format!("{ENCODED}{}", BASE64URL_NOPAD.encode(user.as_bytes())).into()
}

fn user_of(segment: &str) -> Option<String> {
    let user = match segment.strip_prefix(ENCODED) {
        None => segment.to_owned(),
        Some(encoded) => String::from_utf8(BASE64URL_NOPAD.decode(encoded.as_bytes()).ok()?).ok()?,
    };
    (is_id(&user) && self::segment(&user) == segment).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_a_folder_of_their_own() {
        for (user, expected) in [
            ("user_2abc", "users/user_2abc"),
            ("auth0|62f", "users/auth0|62f"),
            ("ann@example.com", "users/ann@example.com"),
            ("ann/bob", "users/~YW5uL2JvYg"),
            ("..", "users/~Li4"),
            ("~Li4", "users/~fkxpNA"),
            ("a&b", "users/~YSZi"),
        ] {
            assert_eq!(folder(user), expected);
            let file = format!("{expected}/photo");
            assert_eq!(of(None, &file).as_deref(), Some(user), "{file}");
            assert!(is_below(&file, user) && is_folder_of(expected, user), "{file}");
        }
    }

    #[test]
    fn a_path_that_plays_tricks_names_nobody() {
        for path in [
            "users/../user_ann/x",
            "users/user_ann/../user_bob/x",
            "users//x",
            "users/user_ann",
            "users/user_ann/",
            "users/./x",
            "users/user_ann\\x/y",
            "Users/user_ann/x",
            "x/users/user_ann/y",
            "users/~Li4=/x",
            "users/~dXNlcl9hbm4/x", // a plain id, encoded
            "users/a b/x",
            "marketing/banner",
        ] {
            assert_eq!(of(None, path), None, "{path}");
            assert!(!is_below(path, "user_ann"), "{path}");
        }
        for (path, folder) in [
            ("users/user_ann", true),
            ("users/user_ann/albums/2026", true),
            ("users/user_anna", false),
            ("users/user_ann/../user_bob", false),
            ("users/user_ann/", false),
            ("users", false),
        ] {
            assert_eq!(is_folder_of(path, "user_ann"), folder, "{path}");
        }
    }

    #[test]
    fn the_signed_context_counts_before_the_path_and_must_agree_with_it() {
        for (context, path, owner) in [
            (Some("user_ann"), "anywhere/x", Some("user_ann")),
            (Some("user_ann"), "users/user_ann/x", Some("user_ann")),
            (Some("user_ann"), "users/user_bob/x", None),
            (Some("user_ann"), "users/../user_bob/x", Some("user_ann")),
            (Some(""), "users/user_bob/x", Some("user_bob")),
            (None, "x", None),
        ] {
            assert_eq!(of(context, path).as_deref(), owner, "{context:?} {path}");
        }
    }

    #[test]
    fn nobody_has_another_users_id_signed() {
        for (context, allowed) in [
            ("alt=A photo|caption=x", true),
            ("user_id=user_ann", true),
            ("alt=x|user_id=user_ann", true),
            ("user_id=user_bob", false),
            ("alt=x|user_id=user_bob", false),
            ("alt=x\\|user_id=user_bob", false),
            ("user\\_id=user_bob", false),
            (" User_ID =user_bob", false),
            ("user_id=user_ann|user_id=user_bob", false),
            ("user_id", false),
        ] {
            assert_eq!(is_context_of(context, "user_ann"), allowed, "{context}");
        }
        assert_eq!(context("auth0|a=b"), "user_id=auth0\\|a\\=b");
    }
}
