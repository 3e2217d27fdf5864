//! Where things are kept when nothing is configured.

use std::path::PathBuf;

/// The data folder of an edge or an agent (`role`): the user's data folder of
/// the XDG base directory specification, on Windows the local application
/// data. `None` when the environment names no home.
#[must_use]
pub fn default_data(variable: &dyn Fn(&str) -> Option<String>, role: &str) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let base = set("XDG_DATA_HOME")
        .and_then(absolute)
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .or_else(|| set("LOCALAPPDATA"))?;
    Some(base.join("adit").join(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_folder_is_the_users() {
        let at = |pairs: &'static [(&str, &str)]| {
            let find = move |name: &str| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            default_data(&find, "edge").map(|p| p.display().to_string())
        };
        let home = at(&[("HOME", "/home/ann")]);
        assert_eq!(home.as_deref(), Some("/home/ann/.local/share/adit/edge"));
        let xdg = at(&[("HOME", "/home/ann"), ("XDG_DATA_HOME", "/data")]);
        assert_eq!(xdg.as_deref(), Some("/data/adit/edge"));
        let relative = at(&[("HOME", "/h"), ("XDG_DATA_HOME", "data")]);
        assert_eq!(relative.as_deref(), Some("/h/.local/share/adit/edge"));
        assert_eq!(at(&[]), None);
    }
}
