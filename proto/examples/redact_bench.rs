use std::time::Instant;
use oxibot_proto::redact::Redactor;
fn main() {
    let t = Instant::now();
    let r = Redactor::load().unwrap();
    println!("load {:?}", t.elapsed());
    for path in std::env::args().skip(1) {
        let data = std::fs::read(&path).unwrap();
        let mut big = Vec::new();
        while big.len() < 20_000_000 { big.extend_from_slice(&data); }
        let t = Instant::now();
        let mut stream = r.stream();
        let mut out = Vec::with_capacity(70000);
        let mut n = 0;
        for c in big.chunks(65536) { out.clear(); stream.push(c, &mut out); n += out.len(); }
        out.clear(); stream.finish(&mut out); n += out.len();
        let d = t.elapsed();
        println!("{path}: {} -> {} bytes in {:?}: {:.0} MB/s", big.len(), n, d, big.len() as f64 / 1e6 / d.as_secs_f64());
    }
}
