// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! From a word to an instruction. The crate `raki` finds the fields; this module refuses the encodings that it lets pass
//! although they are reserved or belong to an extension that a hart does not have.

use crate::instruction::SINK;
use crate::{Amo, Instruction, Op, Width};
use raki::{
    AOpcode, BaseIOpcode, COpcode, Decode, Isa, MOpcode, OpcodeKind, ZicntrOpcode, ZifenceiOpcode,
};

const RA: u8 = 1;
const SP: u8 = 2;

/// Whether the instruction that begins with `word` has 2 bytes.
pub(crate) const fn is_compressed(word: u32) -> bool {
    word & 3 != 3
}

/// Decodes the instruction that begins with `word`.
pub(crate) fn decode(word: u32) -> Instruction {
    match is_compressed(word) {
        true => compressed(word as u16).unwrap_or(Instruction::illegal(2)),
        false => full(word).unwrap_or(Instruction::illegal(4)),
    }
}

/// An instruction of 4 bytes.
fn full(word: u32) -> Option<Instruction> {
    if is_reserved(word) {
        return None;
    }
    let raw = word.decode(Isa::Rv64).ok()?;
    let op = match raw.opc {
        OpcodeKind::BaseI(opcode) => base(&opcode),
        OpcodeKind::M(opcode) => multiply(&opcode),
        OpcodeKind::A(opcode) => atomic(&opcode),
        // All kinds of fences, and hints in their encoding, are the strongest one.
        OpcodeKind::Zifencei(ZifenceiOpcode::FENCE) => return Some(bare(Op::Fence, 4)),
        OpcodeKind::Zicntr(ZicntrOpcode::RDCYCLE | ZicntrOpcode::RDINSTRET) => Op::ReadRetired,
        OpcodeKind::Zicntr(ZicntrOpcode::RDTIME) => Op::ReadTime,
        _ => return None,
    };
    let immediate = raw.imm.unwrap_or(0);
    Some(Instruction {
        op,
        rd: destination(raw.rd),
        rs1: source(raw.rs1),
        rs2: source(raw.rs2),
        bytes: 4,
        immediate: match op {
            // `raki` gives the field of 20 bits here, and the shifted number for C.LUI.
            Op::Lui | Op::Auipc => immediate << 12,
            _ => immediate,
        },
    })
}

/// Whether an encoding of 4 bytes is none of RV64IMA, although `raki` takes it for one.
fn is_reserved(word: u32) -> bool {
    let field = |low: u32, bits: u32| (word >> low) & ((1 << bits) - 1);
    let (rd, funct3, rs1, rs2, funct7) = (
        field(7, 5),
        field(12, 3),
        field(15, 5),
        field(20, 5),
        field(25, 7),
    );
    match word & 0x7f {
        // OP and OP-32: other values of funct7 are other extensions.
        0x33 | 0x3b => match funct7 {
            0 | 1 => false,
            0x20 => funct3 != 0 && funct3 != 5,
            _ => true,
        },
        // OP-IMM-32: the shift to the left.
        0x1b => funct3 == 1 && funct7 != 0,
        // JALR.
        0x67 => funct3 != 0,
        // LR has no second operand.
        0x2f => funct7 >> 2 == 2 && rs2 != 0,
        // ECALL and EBREAK have no operands; counters are only read.
        0x73 => match funct3 {
            0 => rd != 0 || rs1 != 0 || funct7 != 0,
            2 => rs1 != 0,
            _ => true,
        },
        _ => false,
    }
}

/// An instruction of 2 bytes.
fn compressed(half: u16) -> Option<Instruction> {
    let raw = half.decode(Isa::Rv64).ok()?;
    let OpcodeKind::C(opcode) = raw.opc else {
        return None;
    };
    let immediate = raw.imm.unwrap_or(0);
    let (rd, rs1, rs2) = (raw.rd, source(raw.rs1), source(raw.rs2));
    let target = source(rd);
    let of = |op, rd: Option<usize>, rs1, rs2, immediate| {
        Some(Instruction {
            op,
            rd: destination(rd),
            rs1,
            rs2,
            bytes: 2,
            immediate,
        })
    };
    let unary = |op| of(op, rd, target, 0, immediate);
    let binary = |op| of(op, rd, target, rs2, 0);
    // The manual's reserved encodings.
    let reserved = match opcode {
        COpcode::ADDI4SPN | COpcode::ADDI16SP | COpcode::LUI => immediate == 0,
        COpcode::ADDIW | COpcode::LWSP | COpcode::LDSP => target == 0,
        COpcode::JR => rs1 == 0,
        _ => false,
    };
    if reserved {
        return None;
    }
    match opcode {
        COpcode::ADDI4SPN => of(Op::Addi, rd, SP, 0, immediate),
        COpcode::LW => of(Op::Load(Width::Word), rd, rs1, 0, immediate),
        COpcode::LD => of(Op::Load(Width::Double), rd, rs1, 0, immediate),
        COpcode::SW => of(Op::Store(Width::Word), None, rs1, rs2, immediate),
        COpcode::SD => of(Op::Store(Width::Double), None, rs1, rs2, immediate),
        COpcode::NOP => of(Op::Addi, None, 0, 0, 0),
        COpcode::ADDI => unary(Op::Addi),
        COpcode::ADDIW => unary(Op::Addiw),
        COpcode::LI => of(Op::Addi, rd, 0, 0, immediate),
        COpcode::ADDI16SP => of(Op::Addi, Some(SP.into()), SP, 0, immediate),
        COpcode::LUI => of(Op::Lui, rd, 0, 0, immediate),
        COpcode::SRLI => unary(Op::Srli),
        COpcode::SRAI => unary(Op::Srai),
        COpcode::ANDI => unary(Op::Andi),
        COpcode::SUB => binary(Op::Sub),
        COpcode::XOR => binary(Op::Xor),
        COpcode::OR => binary(Op::Or),
        COpcode::AND => binary(Op::And),
        COpcode::SUBW => binary(Op::Subw),
        COpcode::ADDW => binary(Op::Addw),
        COpcode::J => of(Op::Jal, None, 0, 0, immediate),
        COpcode::BEQZ => of(Op::Beq, None, rs1, 0, immediate),
        COpcode::BNEZ => of(Op::Bne, None, rs1, 0, immediate),
        COpcode::SLLI => unary(Op::Slli),
        COpcode::LWSP => of(Op::Load(Width::Word), rd, SP, 0, immediate),
        COpcode::LDSP => of(Op::Load(Width::Double), rd, SP, 0, immediate),
        COpcode::JR => of(Op::Jalr, None, rs1, 0, 0),
        COpcode::JALR => of(Op::Jalr, Some(RA.into()), rs1, 0, 0),
        COpcode::MV => of(Op::Add, rd, 0, rs2, 0),
        COpcode::ADD => binary(Op::Add),
        // With a second operand it is an addition to `x0`, a hint.
        COpcode::EBREAK if half >> 2 & 31 != 0 => Some(bare(Op::Addi, 2)),
        COpcode::EBREAK => Some(bare(Op::Ebreak, 2)),
        COpcode::SWSP => of(Op::Store(Width::Word), None, SP, rs2, immediate),
        COpcode::SDSP => of(Op::Store(Width::Double), None, SP, rs2, immediate),
        // RV32 alone.
        COpcode::JAL => None,
    }
}

/// An instruction without operands.
fn bare(op: Op, bytes: u8) -> Instruction {
    Instruction {
        op,
        ..Instruction::illegal(bytes)
    }
}

/// A destination register: what is written to `x0` goes to the sink.
fn destination(register: Option<usize>) -> u8 {
    match source(register) {
        0 => SINK,
        register => register,
    }
}

/// A source register, `x0` where there is none.
fn source(register: Option<usize>) -> u8 {
    (register.unwrap_or(0) % 32) as u8
}

fn base(opcode: &BaseIOpcode) -> Op {
    match opcode {
        BaseIOpcode::LUI => Op::Lui,
        BaseIOpcode::AUIPC => Op::Auipc,
        BaseIOpcode::JAL => Op::Jal,
        BaseIOpcode::JALR => Op::Jalr,
        BaseIOpcode::BEQ => Op::Beq,
        BaseIOpcode::BNE => Op::Bne,
        BaseIOpcode::BLT => Op::Blt,
        BaseIOpcode::BGE => Op::Bge,
        BaseIOpcode::BLTU => Op::Bltu,
        BaseIOpcode::BGEU => Op::Bgeu,
        BaseIOpcode::LB => Op::Load(Width::Byte),
        BaseIOpcode::LH => Op::Load(Width::Half),
        BaseIOpcode::LW => Op::Load(Width::Word),
        BaseIOpcode::LD => Op::Load(Width::Double),
        BaseIOpcode::LBU => Op::LoadUnsigned(Width::Byte),
        BaseIOpcode::LHU => Op::LoadUnsigned(Width::Half),
        BaseIOpcode::LWU => Op::LoadUnsigned(Width::Word),
        BaseIOpcode::SB => Op::Store(Width::Byte),
        BaseIOpcode::SH => Op::Store(Width::Half),
        BaseIOpcode::SW => Op::Store(Width::Word),
        BaseIOpcode::SD => Op::Store(Width::Double),
        BaseIOpcode::ADDI => Op::Addi,
        BaseIOpcode::SLTI => Op::Slti,
        BaseIOpcode::SLTIU => Op::Sltiu,
        BaseIOpcode::XORI => Op::Xori,
        BaseIOpcode::ORI => Op::Ori,
        BaseIOpcode::ANDI => Op::Andi,
        BaseIOpcode::SLLI => Op::Slli,
        BaseIOpcode::SRLI => Op::Srli,
        BaseIOpcode::SRAI => Op::Srai,
        BaseIOpcode::ADD => Op::Add,
        BaseIOpcode::SUB => Op::Sub,
        BaseIOpcode::SLL => Op::Sll,
        BaseIOpcode::SLT => Op::Slt,
        BaseIOpcode::SLTU => Op::Sltu,
        BaseIOpcode::XOR => Op::Xor,
        BaseIOpcode::SRL => Op::Srl,
        BaseIOpcode::SRA => Op::Sra,
        BaseIOpcode::OR => Op::Or,
        BaseIOpcode::AND => Op::And,
        BaseIOpcode::ECALL => Op::Ecall,
        BaseIOpcode::EBREAK => Op::Ebreak,
        BaseIOpcode::ADDIW => Op::Addiw,
        BaseIOpcode::SLLIW => Op::Slliw,
        BaseIOpcode::SRLIW => Op::Srliw,
        BaseIOpcode::SRAIW => Op::Sraiw,
        BaseIOpcode::ADDW => Op::Addw,
        BaseIOpcode::SUBW => Op::Subw,
        BaseIOpcode::SLLW => Op::Sllw,
        BaseIOpcode::SRLW => Op::Srlw,
        BaseIOpcode::SRAW => Op::Sraw,
    }
}

fn multiply(opcode: &MOpcode) -> Op {
    match opcode {
        MOpcode::MUL => Op::Mul,
        MOpcode::MULH => Op::Mulh,
        MOpcode::MULHSU => Op::Mulhsu,
        MOpcode::MULHU => Op::Mulhu,
        MOpcode::DIV => Op::Div,
        MOpcode::DIVU => Op::Divu,
        MOpcode::REM => Op::Rem,
        MOpcode::REMU => Op::Remu,
        MOpcode::MULW => Op::Mulw,
        MOpcode::DIVW => Op::Divw,
        MOpcode::DIVUW => Op::Divuw,
        MOpcode::REMW => Op::Remw,
        MOpcode::REMUW => Op::Remuw,
    }
}

fn atomic(opcode: &AOpcode) -> Op {
    use Width::{Double, Word};
    match opcode {
        AOpcode::LR_W => Op::LoadReserved(Word),
        AOpcode::SC_W => Op::StoreConditional(Word),
        AOpcode::AMOSWAP_W => Op::Amo(Amo::Swap, Word),
        AOpcode::AMOADD_W => Op::Amo(Amo::Add, Word),
        AOpcode::AMOXOR_W => Op::Amo(Amo::Xor, Word),
        AOpcode::AMOAND_W => Op::Amo(Amo::And, Word),
        AOpcode::AMOOR_W => Op::Amo(Amo::Or, Word),
        AOpcode::AMOMIN_W => Op::Amo(Amo::Min, Word),
        AOpcode::AMOMAX_W => Op::Amo(Amo::Max, Word),
        AOpcode::AMOMINU_W => Op::Amo(Amo::MinUnsigned, Word),
        AOpcode::AMOMAXU_W => Op::Amo(Amo::MaxUnsigned, Word),
        AOpcode::LR_D => Op::LoadReserved(Double),
        AOpcode::SC_D => Op::StoreConditional(Double),
        AOpcode::AMOSWAP_D => Op::Amo(Amo::Swap, Double),
        AOpcode::AMOADD_D => Op::Amo(Amo::Add, Double),
        AOpcode::AMOXOR_D => Op::Amo(Amo::Xor, Double),
        AOpcode::AMOAND_D => Op::Amo(Amo::And, Double),
        AOpcode::AMOOR_D => Op::Amo(Amo::Or, Double),
        AOpcode::AMOMIN_D => Op::Amo(Amo::Min, Double),
        AOpcode::AMOMAX_D => Op::Amo(Amo::Max, Double),
        AOpcode::AMOMINU_D => Op::Amo(Amo::MinUnsigned, Double),
        AOpcode::AMOMAXU_D => Op::Amo(Amo::MaxUnsigned, Double),
    }
}
