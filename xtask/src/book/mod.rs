//! `cargo xtask book`: docs as a book. That every page is in it, and that every link leads somewhere, is tested without mdBook.

mod links;

use crate::shell;

/// Builds the book into target/book, where mdBook is there.
pub(crate) fn run() -> Result<(), String> {
    let broken = links::broken()?;
    if !broken.is_empty() {
        return Err(broken.join("\n"));
    }
    if !shell::is_there("mdbook") {
        println!("NOT RUN: no mdbook; install it with `cargo install mdbook`");
        return Ok(());
    }
    shell::program("mdbook", &["build", "docs"]).run()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    fn links_of_the_summary() -> BTreeSet<String> {
        let text = fs::read_to_string(links::root().join("docs/SUMMARY.md")).unwrap();
        links::in_text(&text).into_iter().collect()
    }

    #[test]
    fn every_page_of_docs_is_in_the_table_of_contents() {
        let docs = links::root().join("docs");
        let pages: BTreeSet<String> = links::pages()
            .unwrap()
            .iter()
            .filter_map(|page| page.strip_prefix(&docs).ok())
            .map(|page| page.to_str().unwrap().to_owned())
            .filter(|page| page != "SUMMARY.md")
            .collect();
        assert!(pages.len() > 15, "only {} pages were found", pages.len());
        assert_eq!(pages, links_of_the_summary());
    }

    /// The reading order on the first page names every page too, but those that the page of
    /// decisions names.
    #[test]
    fn the_first_page_leads_to_every_page() {
        let text = fs::read_to_string(links::root().join("docs/README.md")).unwrap();
        let named = links::in_text(&text);
        let left_out: Vec<String> = links_of_the_summary()
            .into_iter()
            .filter(|page| page != "README.md")
            .filter(|page| !page.starts_with("decisions/") || page.ends_with("README.md"))
            .filter(|page| !named.contains(page))
            .collect();
        assert!(left_out.is_empty(), "{left_out:?}");
    }

    #[test]
    fn every_link_leads_somewhere() {
        let broken = links::broken().unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }
}
