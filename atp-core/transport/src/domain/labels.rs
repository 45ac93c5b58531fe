//! Labels of domains, kept in the metadata of their definitions.

use std::collections::BTreeMap;

/// The XML namespace of the element that holds a domain's labels in the metadata of its definition. Once written, a
/// namespace never changes; another form would have another number.
pub const LABELS_NAMESPACE: &str = "urn:atp:labels:1";

/// The labels in an element of the namespace [`LABELS_NAMESPACE`]. What cannot be read is no label.
pub fn read_labels(xml: &str) -> BTreeMap<String, String> {
    let Ok(document) = roxmltree::Document::parse(xml) else {
        tracing::warn!("metadata of a domain is not XML");
        return BTreeMap::new();
    };
    let labels = document.root_element().children().filter(|node| node.tag_name().name() == "label");
    labels
        .filter_map(|label| Some((label.attribute("key")?.to_owned(), label.attribute("value")?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_keys_with_values() {
        let xml = "<l:labels xmlns:l='urn:atp:labels:1'><l:label key='role' value='web'/>\
                   <l:label key='a b' value='&lt;'/><l:label key='none'/><other key='x' value='y'/></l:labels>";
        let labels = read_labels(xml);
        assert_eq!(labels.len(), 2);
        assert_eq!((labels["role"].as_str(), labels["a b"].as_str()), ("web", "<"));
        assert!(read_labels("<labels").is_empty());
    }
}
