//! What a print of a request shows.

use vram_residency::{ImportRequest, SealRequest};

#[test]
fn a_print_of_a_request_shows_no_tenant_and_no_metadata() {
    let (tenant, metadata) = (b"secret-tenant", b"secret-shape");
    let seal = SealRequest::new("model", 0).context(tenant).metadata(metadata);
    let import = ImportRequest::new("model", 0).context(tenant).metadata(metadata);
    for print in [format!("{seal:?}"), format!("{import:?}")] {
        assert!(print.contains("model") && print.contains("context_len: 13"), "{print}");
        assert!(print.contains("12 bytes"), "{print}");
        for secret in [&tenant[..], metadata] {
            assert!(!print.contains(core::str::from_utf8(secret).unwrap()), "{print}");
            assert!(!print.contains(&format!("{}, {}", secret[0], secret[1])), "{print}");
        }
    }
}
