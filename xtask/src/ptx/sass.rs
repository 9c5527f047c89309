//! Instructions of a card, as nvdisasm writes them: how many in a loop use which unit.

use std::collections::BTreeMap;

/// What runs on the unit for logic, shifts and sums. Multiplications run beside it.
///
/// By name alone: which unit takes an instruction is nowhere documented. On cards from Volta to Hopper
/// these share one of 64 lanes a clock and multiprocessor.
const LOGIC: &[&str] = &[
    "LOP3", "LOP", "PLOP3", "IADD3", "IADD", "VIADD", "SHF", "PRMT", "ISETP", "SEL", "LEA", "IABS",
    "IMNMX", "VIMNMX", "BMSK", "SGXT", "FSEL", "CSEL",
];

/// How many instructions of the logic unit the loop of `blake3_items` has that loads one block of 64
/// bytes: four loads, and no access of shared memory.
pub(super) fn hash_loop(text: &str) -> Option<usize> {
    let code = Code::of(text, "blake3_items");
    let loops = code.loops().filter(|body| {
        let count = |name: &str| body.iter().filter(|op| **op == name).count();
        count("LDG") == 4 && count("LDS") == 0
    });
    loops.map(|body| body.iter().filter(|op| LOGIC.contains(op)).count()).min()
}

/// The instructions of one kernel.
struct Code<'t> {
    operations: Vec<&'t str>,
    /// Backward branches: from where, to where.
    back: Vec<(usize, usize)>,
}

impl<'t> Code<'t> {
    fn of(text: &'t str, kernel: &str) -> Self {
        let section = format!(".text.{kernel}:");
        let lines = text.lines().skip_while(|line| line.trim() != section).skip(1);
        let (mut operations, mut back) = (Vec::new(), Vec::new());
        let mut labels: BTreeMap<&str, usize> = BTreeMap::new();
        for line in lines.take_while(|line| !line.starts_with(".text.")) {
            let line = line.trim();
            if let Some(label) = line.strip_suffix(':') {
                labels.insert(label, operations.len());
                continue;
            }
            // `/*0040*/  @!P0 LOP3.LUT R1, … ;`
            let Some((_, rest)) = line.strip_prefix("/*").and_then(|line| line.split_once("*/"))
            else {
                continue;
            };
            let mut words = rest.split_whitespace().skip_while(|word| word.starts_with('@'));
            let Some(name) = words.next().and_then(|word| word.split(['.', ';']).next()) else {
                continue;
            };
            if name == "BRA"
                && let Some((_, label)) = rest.split_once("`(")
                && let Some(target) = label.split(')').next().and_then(|label| labels.get(label))
            {
                back.push((operations.len(), *target));
            }
            operations.push(name);
        }
        Self { operations, back }
    }

    fn loops(&self) -> impl Iterator<Item = &[&'t str]> {
        self.back.iter().filter_map(|(from, to)| self.operations.get(*to..=*from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
.text.other:
.L_x_0:
        /*0000*/                   LDG.E R1, [R2] ;
        /*0010*/                   BRA `(.L_x_0);
.text.blake3_items:
        /*0000*/                   LOP3.LUT R1, R2, R3, RZ, 0x3c, !PT ;
.L_x_1:
        /*0010*/                   LDG.E.128 R4, [R2] ;
        /*0020*/                   LDG.E.128 R4, [R2] ;
        /*0030*/                   LDG.E.128 R4, [R2] ;
        /*0040*/                   LDG.E.128 R4, [R2] ;
        /*0050*/              @!P0 LOP3.LUT R1, R2, R3, RZ, 0x3c, !PT ;
        /*0060*/                   IMAD R1, R2, R3, R4 ;
        /*0070*/                   SHF.L.W.U32.HI R1, R2, 0x10, R2 ;
        /*0080*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
        /*0090*/                   LDS R1, [R2] ;
        /*00a0*/                   IADD3 R1, R2, R3, RZ ;
        /*00b0*/                   BRA `(.L_x_2) ;
        /*00c0*/                   BRA `(.L_x_9) ;
.text.last:
";

    #[test]
    fn the_loop_over_blocks_is_found_and_its_logic_counted() {
        assert_eq!(hash_loop(TEXT), Some(2));
        assert_eq!(hash_loop(&TEXT.replace("LDG.E.128", "LDG")), Some(2));
        assert_eq!(hash_loop(&TEXT.replacen("LDG.E.128", "MOV", 1)), None);
        assert_eq!(hash_loop(""), None);
    }
}
