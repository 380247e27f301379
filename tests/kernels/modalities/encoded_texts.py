"""Texts of many languages, written for these tests, with the encodings of files in these languages."""

_WESTERN = ("cp1252", "iso8859-1", "iso8859-15", "cp850", "cp437", "mac-roman")
_CENTRAL = ("cp1250", "iso8859-2", "cp852")
_CYRILLIC = ("cp1251", "koi8-r", "cp866", "mac-cyrillic", "iso8859-5")
ENCODINGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("en", "de", "fr", "es", "it", "pt", "sv", "da", "nl", "fi"), _WESTERN),
    **dict.fromkeys(("pl", "cs", "hu", "ro", "hr"), _CENTRAL),
    "ru": _CYRILLIC,
    "uk": ("cp1251", "koi8-u", "mac-cyrillic"),
    "bg": ("cp1251", "cp866", "iso8859-5"),
    "el": ("cp1253", "iso8859-7", "cp737", "mac-greek"),
    "tr": ("cp1254", "iso8859-9", "cp857"),
    "lt": ("cp1257",),
    "ja": ("shift_jis", "euc_jp"),
    "zh": ("gb18030",),
    "zh-tw": ("big5",),
    "ko": ("euc_kr",),
    "he": ("cp1255", "iso8859-8"),
    "ar": ("cp1256",),
    "th": ("cp874",),
}
# The encodings of most files that are not UTF-8.
COMMON = frozenset(
    {
        *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp866", "koi8-r"),
        *("iso8859-1", "iso8859-2", "iso8859-15", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
    }
)
TEXTS: dict[str, list[str]] = {
    "en": [
        "café", "naïve", "résumé", "“Yes”", "Don’t panic", "a £5 note", "fiancé", "25 °C outside",
        "Ø 10 mm", "Zoë’s house", "The café opens at nine and closes at half past five.",
        "She said: “I won’t be late – promise.”", "Brontë sisters",
        "We paid £12.50 for two coffees and a piece of cake.", "© 2021 Smith & Sons", "± 0.5 mm",
        "3 × 4 cm", "½ cup of sugar", "The piñata broke after the third hit, and sweets fell everywhere.",
        "It costs €20 – no discounts…", "déjà vu", "façade", "Motörhead", "jalapeño", "“Stop!” he cried.",
        "the team’s best", "£3.99 each", "crème fraîche", "San José", "soupçon", "70 °F", "Ångström",
        "mañana", "We met at a small café near the station, didn’t we?",
        "The price – including tax – is £40.", "Führer, naïveté and cliché are loan words.",
        "It was the best of times, it was the worst of times; nobody’s fault, really, but the weather’s.",
    ],
    "de": [
        "Grüße", "schön", "Straße", "für", "über", "Öl", "Äpfel", "Fußball", "Guten Tag, Herr Müller",
        "Ø 10 mm", "Tür zu!", "20 °C", "Mit freundlichen Grüßen", "Köln", "München", "Weiß nicht",
        "§ 5 Abs. 2", "Die Tür ist offen, und draußen regnet es schon wieder.",
        "Können Sie mir bitte sagen, wie spät es ist?",
        "Der Bürgermeister eröffnet heute die neue Brücke über den Fluss.",
        "„Komm schnell“, rief er, „das Essen ist fertig!“",
        "Das Gerät hat eine Größe von 30 × 20 cm und wiegt 1,5 kg.", "Frühstück", "Käse", "Gemüse",
        "Wörter", "heiß", "Überraschung!", "Ich möchte zahlen", "Zürich", "größer als", "Ärger", "süß",
        "Jürgen Groß", "Heute Abend gehen wir ins Kino und danach in die Kneipe um die Ecke, natürlich.",
        "Wäre es möglich, früher zu kommen?", "Das Mädchen läuft über die Straße.",
    ],
    "fr": [
        "été", "garçon", "où", "Noël", "français", "déjà", "forêt", "hôtel", "À bientôt", "Ça va ?",
        "Bonne journée à tous", "n° 12", "œuvre", "l’été", "Élève", "crème brûlée",
        "L’école est fermée à cause de la neige.", "Elle a acheté des gâteaux pour la fête de son frère.",
        "Il faut que j’aille à la bibliothèque avant la fermeture.",
        "Le train de 18 h arrive à l’heure, malgré la grève.",
        "« Où étais-tu ? » demanda-t-elle, étonnée.", "théâtre", "naïf", "bientôt", "même", "là-bas",
        "François", "élève modèle", "château", "reçu", "cœur", "sûr", "gêné", "Où ça ?",
        "Le garçon était très fatigué après la journée d’école.",
        "Nous espérons vous revoir bientôt à Genève.", "Cet hôtel a été rénové l’année dernière.",
    ],
    "es": [
        "mañana", "niño", "¿Qué?", "¡Hola!", "adiós", "España", "corazón", "año nuevo", "señor", "él",
        "¡Feliz cumpleaños!", "Sí, señora", "¿Cuánto cuesta?", "árbol", "1.ª planta",
        "El niño comió una manzana y después se durmió.",
        "Mañana iré a la playa con mi hermano y su perro.", "¿Dónde están las llaves del coche?",
        "La reunión será el próximo miércoles a las diez.",
        "Según el informe, la población creció un 3 % el año pasado.", "canción", "jamón", "cigüeña",
        "todavía", "¿Por qué no?", "inglés", "Málaga", "último día", "peña", "¡Qué bien!", "camión",
        "Ella cantó una canción muy bonita en la fiesta de Año Nuevo.", "¿Quién llamó a la puerta anoche?",
        "El avión llegará más tarde de lo previsto.",
    ],
    "pl": [
        "dzień dobry", "książka", "żółty", "źródło", "łódź", "święta", "Cześć!", "proszę", "dziękuję",
        "Łódź", "miłość", "być może", "Gdzie jesteś?", "Kraków", "Jarosław Kaczyński", "1 200 zł",
        "Proszę zamknąć drzwi, bo jest zimno.", "W sobotę pójdziemy do kina, a potem na kolację.",
        "Moja siostra mieszka w Łodzi i pracuje w szkole.",
        "Wczoraj wieczorem padał śnieg i drogi były śliskie.", "Książka leży na stole obok żółtego kubka.",
        "miło mi", "księżyc", "ulica Długa", "pięć", "Wrocław", "późno", "świeży chleb",
        "Nie rozumiem, proszę powtórzyć", "Dziś wieczorem będzie padał deszcz.",
        "Lubię chodzić na długie spacery po lesie.", "Ile kosztuje ten zeszyt?  Pięć złotych.",
    ],
    "cs": [
        "Dobrý den", "děkuji", "žluťoučký", "kůň", "Příliš", "čeština", "Na shledanou zítra", "říkat",
        "švestka", "Plzeň", "Nevím přesně", "Jak se máš?", "Díky moc", "řeka", "účet", "Kč 150",
        "Antonín Dvořák", "Včera jsem koupil nové boty a modrý svetr.",
        "Vlak do Brna odjíždí v půl osmé ráno.", "Můžete mi prosím říct, kde je nejbližší lékárna?",
        "Děti si hrají na zahradě za naším domem.", "V létě jezdíme k babičce na venkov, kde je krásně.",
        "Dobré ráno", "město", "přítel", "Brno – hlavní nádraží", "škola", "děti", "zítra", "Jiří Novák",
        "čtyři", "Nerozumím, můžete to zopakovat?", "Dnes večer bude pršet a zítra sněžit.",
        "Rád chodím na dlouhé procházky lesem.", "Kolik stojí tahle růže?",
    ],
    "hu": [
        "köszönöm", "jó napot", "Magyarország", "szívesen", "őszi", "tűz", "víz", "Győr", "könyv",
        "jó éjszakát", "első", "hűtő", "Szép napot kívánok!", "egészségünkre", "Kérem a számlát",
        "A gyerekek az udvaron játszanak a kutyával.", "Holnap reggel korán indulunk a hegyekbe.",
        "Kérek egy kávét tejjel és két cukorral.", "A könyvtár délután ötkor bezár, siess!",
        "Tegnap este jó filmet láttunk a moziban.", "Budapest szép", "szerelem és idő", "gyümölcs", "nő",
        "öt", "Kovács Ödön", "Nem értem, kérem ismételje meg", "Ma este esni fog az eső.",
        "Szeretek hosszú sétákat tenni az erdőben.", "Mennyibe kerül ez a füzet?",
    ],
    "ru": [
        "Привет", "спасибо", "да", "нет", "дом", "Доброе утро", "Как дела?", "Москва", "хлеб и молоко",
        "Я люблю тебя", "книга", "Что это?", "До свидания!", "СССР", "Цена 100 руб.", "Иванов И. И.",
        "Вчера вечером мы смотрели хороший фильм.", "Поезд отправляется в семь часов утра.",
        "Скажите, пожалуйста, где находится библиотека?", "На столе лежит красная книга.",
        "Завтра будет холодно и пойдёт снег.", "любовь", "Санкт-Петербург", "утро", "друг", "СРОЧНО",
        "Кофе и чай", "Я не понимаю, повторите пожалуйста", "Сегодня вечером будет дождь.",
        "Мне нравится гулять по лесу.", "Сколько стоит эта тетрадь?", "версия 2.0", "Файл не найден",
    ],
    "uk": [
        "Доброго дня", "дякую", "Київ", "їжа", "Що це?", "мова", "Як справи?", "є", "Україна",
        "Діти граються у дворі біля школи.", "Завтра ми поїдемо до бабусі в село.",
        "Скільки коштує цей квиток?", "кохання", "місто Львів", "ранок",
        "Я не розумію, повторіть будь ласка", "Сьогодні ввечері буде дощ.",
        "Мені подобається гуляти лісом.",
    ],
    "bg": [
        "Добър ден", "благодаря", "България", "Как си?", "ъгъл", "хляб",
        "Утре отиваме на море с приятели.", "Къде е най-близката аптека?",
        "Книгата е на масата до прозореца.", "любов", "София", "утро", "Не разбирам, моля повторете",
        "Довечера ще вали дъжд.", "Обичам да се разхождам в гората.",
    ],
    "el": [
        "Καλημέρα", "ευχαριστώ", "ναι", "όχι", "νερό", "Αθήνα", "Τι κάνεις;", "σπίτι", "Καλό ταξίδι",
        "βιβλίο", "Το τρένο φεύγει στις επτά το πρωί.", "Πόσο κοστίζει αυτό το βιβλίο;",
        "Τα παιδιά παίζουν στην αυλή του σχολείου.", "αγάπη", "Θεσσαλονίκη", "πρωί", "φίλος",
        "Δεν καταλαβαίνω", "Απόψε θα βρέξει σε όλη τη χώρα.", "Μου αρέσει να περπατάω στο δάσος.",
        "Πόσο κάνει;",
    ],
    "tr": [
        "Günaydın", "teşekkürler", "İstanbul", "çay", "şeker", "ağaç", "Nasılsın?", "İyi akşamlar",
        "öğretmen", "güzel", "çocuk", "Türkçe", "Yarın sabah erken kalkmam gerekiyor.",
        "Bu kitabın fiyatı ne kadar?", "Çocuklar bahçede top oynuyor.",
        "İstanbul’da hava bugün çok güzel ve güneşli.", "aşk", "İzmir", "sabah kahvaltısı", "arkadaş",
        "dört", "Anlamıyorum", "Bu akşam yağmur yağacak.", "Ormanda uzun yürüyüşler yapmayı severim.",
        "Ekmek kaç lira?", "ısı",
    ],
    "it": [
        "perché", "città", "è vero", "più", "caffè", "università", "Così così", "Lunedì", "Sì, grazie",
        "Domani andrò al mare perché fa caldo.", "La città è bellissima, però c’è troppo traffico.",
        "Qual è il tuo indirizzo?", "libertà", "giovedì", "perciò", "virtù", "caffè lungo", "c’è tempo",
        "Forlì", "è così", "La verità è che non lo so.", "Più tardi andrò in città a comprare il caffè.",
    ],
    "pt": [
        "não", "coração", "São Paulo", "amanhã", "você", "informação", "Olá!", "avó", "é isso aí", "pão",
        "Amanhã não vou à escola porque estou doente.", "A reunião começa às três horas.",
        "Vocês já viram o novo avião?", "irmã", "açúcar", "português", "João", "férias", "maçã", "três",
        "Você está aí?", "Até amanhã, então não te esqueças do pão.",
        "A estação fica à direita, depois da praça.",
    ],
    "sv": [
        "smörgås", "Åsa", "hej då", "kött", "räksmörgås", "på väg", "fågel", "Tack så mycket", "älg",
        "I går åkte vi till sjön och badade hela dagen.", "Kan du köpa mjölk och ägg på vägen hem?",
        "Jag förstår inte vad du säger.", "kärlek", "blåbär", "Göteborg", "tjänst", "ö",
        "Vi ses på lördag", "Det är väldigt kallt ute idag, så ta på dig mössan.",
        "Barnen åt glass på ön.",
    ],
    "da": [
        "smørrebrød", "tak for mad, Søren", "København", "på gensyn", "æble", "Ø 12 mm",
        "rødgrød med fløde", "I morgen går vi en lang tur på stranden.",
        "Hvor ligger den nærmeste købmand?", "Børnene leger i haven bag huset.", "kærlighed", "blåbær",
        "Aarhus får", "øl", "Vi ses på lørdag", "Det er meget koldt udenfor i dag, så tag hue på.",
        "Børnene spiste is på øen.",
    ],
    "nl": [
        "geïnteresseerd", "één", "België", "coördinatie", "Zoë", "Daniël",
        "Ik heb één vraag over de coördinatie van het project.", "De ideeën van België werden besproken.",
        "financiële", "reünie", "Curaçao", "vóór acht uur", "De reünie vóór de vakantie was een succes.",
    ],
    "fi": [
        "hyvää päivää", "äiti", "yö", "kiitos päivää", "Jyväskylä", "pöytä",
        "Huomenna menemme mökille järven rannalle.", "Missä on lähin apteekki? Minulla on päänsärkyä.",
        "rakkaus päivä", "Hämeenlinna", "töissä", "Mitä kuuluu?",
        "Tänään on kylmä ja tuulinen sää koko maassa.",
    ],
    "ro": [
        "mulţumesc", "bună ziua", "România", "Bucureşti", "fără", "către", "înainte",
        "Mâine mergem la munte cu prietenii noştri.", "Unde este cea mai apropiată farmacie?", "dimineaţă",
        "mâncare", "oraş", "Iaşi", "pâine şi lapte", "Diseară va ploua în tot oraşul.",
    ],
    "hr": [
        "šest", "kuća", "život", "Đakovo", "čovjek", "Dobro veče svima, Željko",
        "Gdje je najbliža ljekarna, molim vas, gospođo?",
    ],
    "ja": [
        "こんにちは", "東京タワー", "今日は雨が降ります。", "猫", "日本", "カタカナ", "私は毎朝コーヒーを飲みます。", "すみません、わかりません",
    ],
    "zh": [
        "你好", "北京", "今天晚上下雨", "我不明白，请再说一遍。", "猫", "中文文本", "我喜欢在森林里散步，你呢？",
    ],
    "zh-tw": [
        "你好嗎", "臺北", "今天晚上下雨", "我聽不懂，請再說一次。", "我喜歡在森林裡散步。",
    ],
    "ko": [
        "안녕", "서울", "오늘 저녁에 비가 옵니다.", "고양이", "잘 모르겠어요",
    ],
    "he": [
        "שלום", "בוקר טוב", "הערב ירד גשם בכל הארץ.", "אני לא מבין",
    ],
    "ar": [
        "مرحبا", "صباح الخير", "سوف تمطر هذا المساء", "لا أفهم",
    ],
    "th": [
        "สวัสดี", "กรุงเทพ", "คืนนี้ฝนจะตก",
    ],
    "lt": [
        "ačiū", "Šiauliai", "Šiandien vakare lis visoje šalyje.",
    ],
}  # fmt: skip
