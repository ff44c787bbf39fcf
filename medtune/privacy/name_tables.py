"""Tables of the name recognisers: Chinese surnames, and what is no name though it looks like one."""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """Words of a table."""
    return tuple(text.split())


SURNAMES = frozenset(
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢"
    "姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱"
    "江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤常温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹"
    "申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅"
    "童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳管柴蒙鲍华喻祁蒲房滕屈饶解牟艾尤阳时穆农司卓古吉缪简车项连芦麦"
    "褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全"
    "佟应臧闵苟邬边卞姬师和仇栾隋商刁沙荣巫寇桑郎甄丛仲虞敖巩明佘池查麻苑迟邝官封谈匡鞠惠荆乐冀郁胥南班储原栗"
    "燕楚鄢劳谌奚皮粟冼蔺楼盘满闻位厉伊仝区郜海"
    "阚花权强帅屠豆朴盖练廉禹井祖漆巴丰支卿国狄平计索宣晋相初门云容敬来扈晁芮都普阙浦戈伏鹿薄邸雍辜羊阿乌母裘"
    "亓修邰赫杭况那宿鲜印逯隆茹诺战慕危玉银亢嵇公"
    "哈湛宾戎勾茅利於呼居揭干但尉冶斯元束檀衣信展阴昝智幸奉植衡富尧闭由"
    "昌酆傅萧贲洪诸钮滑荀羿汲邴糜牧隗宓蓬郗仰暴钭韶蓟从鄂咸籍赖鬱能苍莘贡逄堵郦郤璩濮寿通郏别阎宦鱼慎庾终暨弘"
    "广禄殳沃蔚夔厍融訾毋乜养须巢蒯竺益桓仉缑郈琴汝钦佴伯赏墨谯笪代"
)
COMPOUND = frozenset(
    listed(
        "欧阳 司马 上官 诸葛 慕容 尉迟 公孙 令狐 宇文 长孙 夏侯 东方 皇甫 司徒 司空 轩辕 端木 百里 南宫 西门 独孤 "
        "呼延 闻人 澹台 濮阳 申屠 钟离 赫连 鲜于 太史 仲孙 "
        "公羊 万俟 拓跋 完颜 纳兰 东郭 第五 公冶 宗政 淳于 单于 公西 漆雕 乐正 壤驷 梁丘 左丘 即墨 羊舌 微生 谷梁"
    )
)
COMMON_SURNAMES = frozenset(
    "洪傅萧阎赖王李张刘陈杨赵吴周徐孙马朱胡郭何林罗郑梁宋唐许韩冯邓曹彭肖田董袁潘蒋蔡余杜叶程苏魏吕丁沈姚卢姜崔钟谭陆汪"
    "范廖贾夏韦付邹孟熊秦邱尹薛闫段雷侯史陶黎贺顾毛郝"
    "龚邵钱覃戴莫孔汤施樊葛邢乔庞颜倪庄聂章鲁岳翟殷詹耿焦俞柳阮柯纪童凌裴霍涂苗翁冉骆靳柴蒙鲍喻祁蒲滕屈饶牟穆"
    "缪芦褚娄窦戚岑佟臧闵邬卞栾隋刁寇虞敖巩佘"
    "高黄金石江白方龙康文万严武任龚温"
)
"""Surnames that one may trust before a title, 张医生; the others are words too: 和医生, 向医生, 谢医生."""

WEAK_SURNAMES = frozenset(
    "应于都况那但由来和向常时万全成从相利用干位信支计初门索国银元居揭平别明强单白严能可乐满养富丰广普景易原边"
    "花海权通连路车解管查巩终储练劳厉官封晋宣植幸智束展阴"
    "修闭敬公宾衣斯印植奉须平尽别强权隆益温容安方危冷闻慎寿融仰糜代通能终养须益从别蓬暴伯放法"
)
"""Surnames that are words first: a name that begins with one needs a label and a colon before it."""

NOT_GIVEN = frozenset(
    "的了是在有不和与或因于对从到被把由向我你他她它们这那此该每某者个位名次种类等也都就还又再已曾会应须需要请"
    "让使给且但而则"
    "男女岁号几多少很最更较没非未吗呢吧啊呀嘛哦么什怎哪谁您咱另只两"
    "血压糖脂烧痛疼肿炎症病癌瘤疮疸斑疹痒痰咳喘泻尿便胃肠肝肾肺脑肛腹胸腰腿脚臂膝肩颈肌骨皮肤眼耳鼻喉舌咽齿胎"
    "孕产诊疗药查住院入室护患伤死亡"
    "说问答看见听找去往起做作打吃喝服食饮睡走跑坐站躺拿带买卖叫想知觉得认主诉述状况情况型期前后左右上下里间所之以至"
    "度量数值低短粗细轻慢旧坏差错误体胞菌毒酸碱盐胺酶片丸剂胶囊颗注射液膏散汤谢啦喔哈嗯哎呵嘿议供姓签字部处局"
    "司厅检验术老配跟过疫"
)
NOT_NAMES = frozenset(
    listed(
        "慎用 慎重 寿命 仰卧 融合 代替 代词 代谢 代表 代执 程中 和妇 养生 养护 能量 通常 通气 别的 从医 终身 "
        "终末 糜烂 史学 高考 初中 祝健 平常 干扰 屈光 李明显 "
        "高血压 高血糖 高血脂 高龄 高度 高危 黄疸 白癜 白带 金黄 任何 任意 石膏 万一 安全 安静 全部 全身 常见 "
        "常规 时间 时候 谢谢 多谢 感谢 何时 何种 马上 于是 成人 成年 平时 平均 温度 温馨 文化 "
        "明显 明确 方便 方法 方面 单纯 单位 单独 解除 解决 应该 应当 向前 连续 强烈 强制 严重 严格 关系 关心 关于 "
        "路上 景况 管理 别人 武警 童年 华夏 普通 普外 都市 原因 原发 相关 相应 支持 支部 国家 国际 公司 公共 满意 "
        "满足 利用 信息 信任 富有 干预 由于 来自 来源 计划 初步 初期 门诊 海外 南方 东方 西方 北方 康复 全科 专科 "
        "家庭 家属 本人 管床 项目 党委 祝您 祝愿 宁静 宁可 尚未 尚可 成功 成都 边缘 平安 "
        "平卧 平素 白天 白色 麻醉 麻木 和睦 毛病 牛奶 石头 江苏 江西 广东 周围 周末 易感 齐全 车祸 冷静 乐观 全家 "
        "景象 权威 封闭 商量 官方 师傅 安排 温和 钟头 钱财 米饭 花粉 豆浆 皮肤 时段 "
        "时刻 常常 常年 常用 万分 向导 阳性 阴性 阳光 黄色 蓝色 金属 安慰 安装 强度 强化 强直 成分 成熟 成为 成形 "
        "单一 单侧 双侧 应用 应激 应急 项链 于上 经常 夏天 夏季 古代 包括 包裹 包块 "
        "顾虑 顾客 熊猫 甘油 左侧 左右 左心 余下 余无 余热 池塘 何必 何况 龙头 沙发 方案 方式 方剂 季节 游泳 连接 "
        "简单 简介 简历 乐于 和谐 和家 和其 和医 和病 和患 万能 戴眼 戴口 徐徐 许多 许可 许久 路过 路径 "
        "施行 施工 尤其 贺卡 符合 冷汗 冷敷 冷热 温水 温热 温开 汤药 汤剂 江湖 牛肉 马路 马虎 居住 居家 居民 居然 "
        "焦虑 焦急 申请 申报 申诉 石化 段落 沈重 费用 荣誉 连同 连带 屈曲 屈服 舒服 舒适 舒张 解释 "
        "解剖 解热 水平 印象 隆起 展开 展示 凌晨 凌乱 童装 柏油 钱包 伏案 乐趣 米粒 元素 哈欠 阿司 阿莫 阿奇 那么 "
        "那些 那样 干燥 干净 利尿 利于 斯状 盘腿 雷同 习惯 印度 祖国 祖父 祖母 班级 宾馆 原来 原则 富含 "
        "幸福 幸好 智力 智能 衡量 植入 植物 信号 奉献 由此 呼吸 呼救 公里 公斤 玉米 银屑 况且 修复 修养 母亲 母乳 "
        "母婴 乌鸡 乌梅 普查 普遍 敬请 敬爱 相信 相对 晋升 宣传 索要 国内 丰富 丰满 支架 支气 巴掌 井然 "
        "练习 盖子 强调 权利 花费 海鲜 海绵 位于 位置 闻到 满意 盘尾 楼上 楼下 劳动 劳累 劳损 储存 班主 南瓜 乐意 "
        "惠者 谈话 谈论 封面 苑区 查体 查房 查看 麻烦 池水 明天 明年 明白 郎中 荣幸 沙眼 商家 师范 边界 "
        "应对 应答 应付 全面 全麻 全年 席位 卫生 费力 宫颈 宫腔 宫外 党员 景色 车辆 连忙 项背 古人 司机 农民 农村 "
        "时常 时有 时而 阳气 艾滋 艾灸 解放 房间 房颤 房事 蒲公 鲍鱼 柴胡 管道 管子 游离 路面 路人 曲线 谷物 谷丙 "
        "谷草 盛行 苗条 成果 涂抹 涂片 季度 单元 毕业 毕竟 梅毒 纪录 尚且 宁愿 包皮 包茎 祝贺 祝福 甘草 甘露 左手 "
        "左腿 左眼 柳絮 焦躁 关节 关注 关键 申明 殷切 章节 庄重 易于 易怒 易患 乔迁 齐刘 安眠 安神 安定 安抚 牛皮 "
        "文明 文献 施术 康健 温暖 常人 汤水 向来 孔径 莫名 莫非 武术 戴上 严禁 严密 钱币 万物 顾及 黎明 陶瓷 史上 "
        "龙骨 侯诊 雷击 段时 江水 秦艽 熊胆 白云 白芍 白术 白芷 白细 白内 白血 白蛋 白喉 白介 方向 付出 付款 "
        "付费 夏枯 "
        "贾第 石斛 石蜡 金银 金标 范围 范畴 汪汪 陆续 钟情 崔嵬 姜黄 姜片 姜汁 卢瑟 沈静 任务 任职 丁香 丁丙 吕布 "
        "苏醒 苏打 程度 程序 叶酸 叶片 杜绝 杜仲 余年 余生 蔡司 蒋委 于今 于此 潘生 董事 田七 肖像 曾经 "
        "曹操 "
        "邓小 冯氏 韩国 韩式 唐氏 唐筛 宋体 谢绝 梁上 郑重 罗红 罗汉 罗音 罗马 林可 林区 高中 高级 高等 高原 "
        "高尿 高压 高频 高蛋 高热 高烧 高脂 高科 何首 何乌 郭城 胡子 胡须 胡说 胡萝 胡椒 胡闹 朱砂 朱红 马铃 "
        "马来 马尾 "
        "孙子 孙女 徐缓 周期 周岁 周边 周一 周二 周三 周四 周五 周六 周日 周转 周身 周易 吴茱 黄体 黄连 "
        "黄芪 黄芩 黄柏 黄豆 黄褐 黄瓜 黄金 黄酒 黄帝 杨梅 杨树 陈旧 陈皮 陈述 刘海 刘寄 张口 张力 张嘴 张开 "
        "李子 王道 "
        "王浆 国医 中医"
    )
)
"""Words that begin like a name; a candidate that begins with one is none."""

NO_VALUE = frozenset(
    listed(
        "不详 未知 未填 未填写 保密 匿名 佚名 无 空 本人 同上 未提供 家属 患者 医生 护士 男 女 不明 待查 见上 "
        "已签 未签 签名 姓名"
    )
)

FOLLOWS = frozenset(
    "因于男女的是在有来主诉今自现系入出住说问表告年性电身患，诊就近经行术与和及及其以从到被由曾既否已也还突前"
    "后号同一二三四五六七八九"
)
"""Characters that may stand right behind a name within a sentence."""

NOT_ENGLISH_NAMES = frozenset(
    listed(
        "the a an and or of in on at to for with from by is was are were be has had have will may can not no yes "
        "unknown none n/a na he she "
        "it they his her their this that who patient patients name date dob age sex gender male female mrn id "
        "number phone tel address "
        "email health information safety education care questionnaire global reported reports summary history "
        "history's outcome outcomes "
        "assistance services service rights portal access centered centred population populations satisfaction "
        "transfer management "
        "monitoring instructions counseling counselling leaflet advocate advocacy group groups data records "
        "record medical practitioner manager "
        "specialist college board hospital clinic department university center centre institute foundation "
        "society association journal "
        "united states america new medicine surgery general internal family emergency inpatient outpatient "
        "signature title role type "
        "status admission discharge diagnosis note notes chart consent form study trial drug tablet tablets "
        "capsule injection oral "
        "hydrochloride sodium acid generic brand who's google house strange world monday tuesday wednesday "
        "thursday friday saturday sunday "
        "january february march april june july august september october november december"
    )
)
