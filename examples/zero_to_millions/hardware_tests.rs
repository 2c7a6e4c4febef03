use super::*;

const BUILT_IN: &str = include_str!("hardware.toml");

/// The error for the built-in file with one piece of it replaced.
fn refused(from: &str, to: &str) -> String {
    assert!(BUILT_IN.contains(from), "{from}");
    let error = Hardware::parse(&BUILT_IN.replacen(from, to, 1)).expect_err("a bad file");
    error.to_string()
}

#[test]
fn every_figure_has_a_reason_and_is_read_in_its_unit() {
    let hardware = Hardware::built_in();
    assert_eq!(hardware.figures().count(), SPECS.len());
    assert!(hardware.figures().all(|figure| figure.why.len() > 10));
    assert_eq!(hardware.web.render_cpu, Duration::from_millis(2));
    assert_eq!(hardware.database.page_memory_bytes, 12 << 30);
    assert_eq!(hardware.web.cache_bytes, 8 << 30);
    assert_eq!(hardware.web.machine.network_bytes_per_second, 5e8);
}

#[test]
fn a_bad_value_is_refused_by_name() {
    for (from, to, want) in [
        (
            "write_share          = { value = 0.1",
            "write_share = { value = 1.5",
            "`workload.write_share` = 1.5: must be from 0 to 1",
        ),
        (
            "write_share          = { value = 0.1",
            "write_share = { value = nan",
            "`workload.write_share` = NaN: must be from 0 to 1",
        ),
        (
            "cores              = { value = 4,",
            "cores = { value = 2.5,",
            "`web.cores` = 2.5: must be a whole number",
        ),
        (
            "cores              = { value = 4,",
            "cores = { value = \"2\",",
            "`web.cores` must be a number, not string \"2\"",
        ),
        (
            "path_factor = { value = 1.5",
            "path_factor = { value = 0.5",
            "`distance.path_factor` = 0.5: must be from 1 to 100",
        ),
        ("[distance]", "[[distance]]", "`distance` must be a table, not array"),
        ("render_cpu_ms ", "rendr_cpu_ms ", "`web.render_cpu_ms` is missing"),
        (
            "render_cpu_ms ",
            "extra = 1\nrender_cpu_ms ",
            "`web.extra` is not a key of this file (is it misspelt?)",
        ),
        ("name = \"queue\"", "name = \"web\"", "`web.cores` is given twice"),
        (
            "name = \"queue\"",
            "name = 3",
            "`machine.name` must be a string, not integer 3",
        ),
        ("name = \"queue\"\n", "", "`machine.name` is missing"),
        (
            "[workload]",
            "[work]",
            "`work` is not a key of this file (is it misspelt?)",
        ),
        (
            "value = [\"avi\"",
            "value = [7",
            "`workload.static_suffixes` must be an array of strings, not integer 7",
        ),
        (
            "{ value = 2,    why = \"a change",
            "{ valeu = 2, why = \"a change",
            "`workload.writes_per_write.value` is missing",
        ),
        (
            "why = \"a change",
            "reason = \"a change",
            "`workload.writes_per_write.why` is missing",
        ),
        (
            "why = \"a change",
            "because = 1, why = \"a change",
            "`workload.writes_per_write.because` is not a key of this file (is it misspelt?)",
        ),
    ] {
        assert_eq!(refused(from, to), want);
    }
    assert!(refused("[workload]", "[workload").starts_with("not TOML: "));
}

#[test]
fn a_bare_value_is_taken_without_a_reason() {
    let bare = |line: &str| match line.strip_prefix("writes_per_write ") {
        Some(_) => "writes_per_write = 3".to_owned(),
        None => line.to_owned(),
    };
    let text: Vec<String> = BUILT_IN.lines().map(bare).collect();
    let hardware = Hardware::parse(&text.join("\n")).expect("a valid file");
    assert_eq!(hardware.workload.writes_per_write, 3);
    let figure = hardware
        .figures()
        .find(|f| f.name == "workload.writes_per_write")
        .expect("it is listed");
    assert_eq!(figure.why, "no reason is given");
}

#[test]
fn files_are_static_and_pages_dynamic() {
    let hardware = Hardware::built_in();
    for page in [
        "/",
        "/a",
        "/a/",
        "/index.html",
        "/cgi-bin/x.pl",
        "/logo.gif?size=2",
        "/v1.2/users",
        "*",
        "",
        "/a.gif/b",
    ] {
        assert!(hardware.is_dynamic(page.as_bytes()), "{page}");
    }
    for file in ["/logo.gif", "/LOGO.GIF", "/a.b/x.tar.gz", "http://host/robots.txt"] {
        assert!(!hardware.is_dynamic(file.as_bytes()), "{file}");
    }
}

#[test]
fn any_figure_can_be_varied_within_its_bounds() {
    let hardware = Hardware::built_in();
    let cores = |factor| hardware.scaled("web.cores", factor).map(|h| h.web.machine.cores);
    assert_eq!((cores(0.75), cores(1.25), cores(0.1)), (Some(3), Some(5), Some(1)));
    let scaled = hardware.scaled("database.read_cpu_ms", 1.25).expect("it can grow");
    assert_eq!(scaled.database.read_cpu, hardware.database.read_cpu.mul_f64(1.25));
    let changed = scaled.figures().zip(hardware.figures()).filter(|(a, b)| a != b);
    assert_eq!(changed.count(), 1);
    assert!(hardware.scaled("web.wheels", 2.0).is_none());
    let none = hardware.scaled("workload.write_share", 0.0).expect("it can be none");
    assert!(none.scaled("workload.write_share", 1.25).is_none());
    for figure in hardware.figures() {
        assert!(
            hardware.scaled(&figure.name, 1.25).is_some() && hardware.scaled(&figure.name, 0.75).is_some(),
            "{}",
            figure.name
        );
    }
}
