//! Labels of domains, kept in the metadata of their definitions.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;
use virt::error::ErrorNumber;
use virt_sys as sys;

use super::LibvirtConnection;
use crate::domain::LABELS_NAMESPACE;
use crate::error::Result;

impl LibvirtConnection {
    /// The labels in the metadata of each of these domains (`virDomainGetMetadata`, one round trip a domain; it
    /// never waits for QEMU). Domains without labels, and those that are gone, have none.
    ///
    /// They stand in an element of the namespace [`LABELS_NAMESPACE`]:
    ///
    /// ```xml
    /// <metadata>
    ///   <labels xmlns="urn:atp:labels:1"><label key="role" value="web"/></labels>
    /// </metadata>
    /// ```
    pub async fn domain_labels(&self, uuids: Vec<Uuid>) -> Result<HashMap<Uuid, BTreeMap<String, String>>> {
        self.run("virDomainGetMetadata", None, move |on| {
            let mut labels = HashMap::with_capacity(uuids.len());
            for uuid in uuids {
                let element = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
                let found = on.domain(uuid).and_then(|domain| {
                    domain.metadata(element, Some(LABELS_NAMESPACE), sys::VIR_DOMAIN_AFFECT_CURRENT)
                });
                match found {
                    Ok(xml) => {
                        labels.insert(uuid, read_labels(&xml));
                    }
                    Err(error)
                        if error.code().is(ErrorNumber::NoDomainMetadata)
                            || error.code().is(ErrorNumber::NoDomain)
                            // A driver without metadata has no labels in it.
                            || error.code().is(ErrorNumber::NoSupport) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(labels)
        })
        .await
    }
}

/// The labels in such an element. What cannot be read is no label.
pub fn read_labels(xml: &str) -> BTreeMap<String, String> {
    let Ok(document) = roxmltree::Document::parse(xml) else {
        tracing::warn!("libvirt gave metadata that is not XML");
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
